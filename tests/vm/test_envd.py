"""The contract suite of the guest agent, inside a guest of each image.

The tests are those of tests/contract/envd, run again with another `agent`: all that reach it by
the network only. One guest of each image serves them all.
"""

import pytest

from contract.envd import (
    test_files,
    test_filesystem,
    test_freeze,
    test_http,
    test_processes,
    test_users,
    test_watch,
)
from envd_agent import Agent, adopted, folder  # noqa: F401 - a fixture
from wrennd.core.config import Config
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxSpec
from wrennd.core.timings import Timings
from wrennd.host.local import LocalSandboxes
from wrennd.host.machine import Machine

SUITES = (
    test_http,
    test_processes,
    test_users,
    test_files,
    test_filesystem,
    test_watch,
    test_freeze,
)


@pytest.fixture(scope="module", params=["base", "busybox"])
def agent(request, layout):
    spec = SandboxSpec(id=new_sandbox_id(), image=request.param, mem_mib=256)
    parts = LocalSandboxes(Config(data_dir=layout.data_dir), print).parts(spec)
    machine = Machine.boot(spec, parts, Timings())
    try:
        machine.envd.init(token="")
        peer = machine.envd.peer
        yield Agent(peer.address, peer.port)
    finally:
        machine.close()


@pytest.fixture
def freezable(agent):
    """Every guest has groups."""
    return agent


globals().update(adopted(SUITES))
