"""What of the guest agent's contract suite takes an emulated guest long: large streams, many files.

As test_envd.py, in guests with room for files of 1 GiB.
"""

import pytest

from contract.envd import test_limits, test_restore
from envd_agent import adopted, folder  # noqa: F401 - a fixture
from guest_agent import freezable, fresh_agent, guest, restorable, tree  # noqa: F401 - fixtures

pytestmark = pytest.mark.long
SUITES = (test_limits, test_restore)
DISK_MIB = 4096


@pytest.fixture(scope="module", params=["base", "busybox"])
def agent(request, layout):
    with guest(layout, request.param, mem_mib=512, disk_mib=DISK_MIB) as agent:
        yield agent


globals().update(adopted(SUITES, heavy=True))
