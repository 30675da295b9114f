"""What of the guest agent's contract suite takes an emulated guest long: large streams, many files.

As test_envd.py, in one guest that has room for files of 1 GiB, on its disk and not in its memory:
the agent and the kernel are the same in every image.
"""

import pytest

from contract.envd import test_client, test_limits, test_processes, test_restore
from envd_agent import adopted, folder  # noqa: F401 - a fixture
from guest_agent import freezable, fresh_agent, guest, restorable, tree  # noqa: F401 - fixtures

WAIT_S = 900.0
pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * WAIT_S)]
SUITES = (test_client, test_limits, test_processes, test_restore)


@pytest.fixture(scope="module")
def agent(layout):
    with guest(layout, "base", timeout_s=WAIT_S, mem_mib=512, disk_mib=4096) as agent:
        yield agent


globals().update(adopted(SUITES, heavy=True))
