"""An agent for each module; the suite speaks to it over the network only, as it will in a guest."""

import pytest

from envd_agent import folder, running  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def agent():
    with running() as agent:
        yield agent


@pytest.fixture
def fresh_agent():
    """One that no other test has told anything."""
    with running() as agent:
        yield agent
