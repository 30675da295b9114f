"""The contract suite of the guest agent, inside a guest of each image.

The tests are those of tests/contract/envd, run again with another `agent`: all that reach it by
the network only, and that an emulated guest does in seconds; test_envd_long.py has the others. One
guest of each image serves them all.
"""

import pytest

from contract.envd import (
    test_client,
    test_endpoints,
    test_files,
    test_filesystem,
    test_freeze,
    test_http,
    test_init,
    test_limits,
    test_processes,
    test_restore,
    test_signatures,
    test_users,
    test_watch,
)
from envd_agent import Tree, adopted, folder  # noqa: F401 - a fixture
from guest_agent import (  # noqa: F401 - fixtures
    freezable,
    fresh_agent,
    guest,
    limited_agent,
    new_agent,
    restorable,
    tree,
)

SUITES = (
    test_http,
    test_processes,
    test_users,
    test_files,
    test_filesystem,
    test_watch,
    test_freeze,
    test_init,
    test_endpoints,
    test_signatures,
    test_limits,
    test_restore,
    test_client,
)


@pytest.fixture(scope="module", params=["base", "busybox"])
def agent(request, layout):
    with guest(layout, request.param, mem_mib=256) as agent:
        yield agent


globals().update(adopted(SUITES))


def test_the_boot_id_that_programs_read_is_the_new_one(pausing):
    """In a guest it is a file that lies over the kernel's."""
    agent = pausing()
    assert test_restore.init(agent, "old", test_restore.order("new"))[0] == 200
    agent.headers = test_restore.token("new")
    assert test_restore.unfreeze(agent) == (200, [])
    own = Tree(agent, "")
    seen = own.read("proc/sys/kernel/random/boot_id")
    assert seen == own.read("usr/lib/wrenn/boot_id")
    assert agent.run("uname", "-n").output["stdout"].decode().strip() == test_restore.SECOND


def test_the_client_lets_the_filesystem_be_as_long_as_its_disk(client):
    """That it gets longer is shown in test_longer_disk.py."""
    sectors, _, _ = test_client.run(client, "cat", "/sys/class/block/vda/size")
    client.grow(int(sectors) * 512)
    assert client.metrics()["disk_total"] <= int(sectors) * 512
