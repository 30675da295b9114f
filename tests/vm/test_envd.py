"""The contract suite of the guest agent, inside a guest of each image.

The tests are those of tests/contract/envd, run again with another `agent`: all that reach it by
the network only. One guest of each image serves them all.
"""

import inspect

import pytest

from contract.envd import (
    test_files,
    test_filesystem,
    test_http,
    test_processes,
    test_users,
    test_watch,
)
from envd_agent import Agent, folder  # noqa: F401 - a fixture
from wrennd.core.config import Config
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxSpec
from wrennd.core.timings import Timings
from wrennd.host.local import LocalSandboxes
from wrennd.host.machine import Machine

SUITES = (test_http, test_processes, test_users, test_files, test_filesystem, test_watch)
# What only a test on the agent's own machine can have.
LOCAL = {"tmp_path", "fresh_agent"}
TOKEN = "token-of-the-contract-suite"


@pytest.fixture(scope="module", params=["base", "busybox"])
def agent(request, layout):
    spec = SandboxSpec(id=new_sandbox_id(), image=request.param, mem_mib=256)
    parts = LocalSandboxes(Config(data_dir=layout.data_dir), print).parts(spec)
    machine = Machine.boot(spec, parts, Timings())
    try:
        machine.envd.init(token=TOKEN)
        peer = machine.envd.peer
        yield Agent(peer.address, peer.port, headers={"X-Access-Token": TOKEN})
    finally:
        machine.close()


def adopt(suite):
    """The suite's fixtures, and its tests under names that don't hide each other."""
    prefix = suite.__name__.rpartition(".")[2]
    for name, value in vars(suite).items():
        if name.startswith("test_"):
            if not LOCAL & set(inspect.signature(value).parameters):
                yield f"{prefix}_{name.removeprefix('test_')}", value
        elif type(value).__name__ == "FixtureFunctionDefinition":
            yield name, value


for suite in SUITES:
    globals().update(adopt(suite))
