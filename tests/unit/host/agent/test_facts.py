"""What the host says of its guests' agent is true."""

from wrennd import envd
from wrennd.host.agent.facts import ENVD_VERSION


def test_the_version_is_that_of_the_agent():
    assert ENVD_VERSION == envd.VERSION
