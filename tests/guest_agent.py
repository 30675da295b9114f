"""The guest agent in guests of each image: the fixtures that its contract suite asks for.

One guest of each image serves a module. What the suite wants new is the guest's own agent, told to
be open and to know nothing, or another one that is started beside it.
"""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from envd_agent import Agent, Tree
from wrennd.core.config import Config
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxSpec
from wrennd.core.timings import Timings
from wrennd.host.local import LocalSandboxes
from wrennd.host.machine import Machine

SECOND_PORT = 50_000
# Emulated, and on a host that does other things too.
TIMEOUT_S = 120.0
HOOKS = "/etc/wrenn/resume.d"
# What of a guest the suite changes for good.
CHANGED = ("/etc/hosts", "/etc/hostname", "/etc/machine-id")


class GuestAgent(Agent):
    """Knows which token is in force: the last that it was told and that was taken."""

    token = ""

    def http(self, method, target, body=None, headers=None):
        reply = super().http(method, target, body, headers)
        if target == "/init" and reply[0] in (200, 204) and body:
            self.token = json.loads(body).get("accessToken", self.token)
        return reply

    def forget(self) -> None:
        """Open again, thawed, and with nothing that it was told but who it is."""
        self.headers = {"X-Access-Token": self.token} if self.token else {}
        assert self.http("POST", "/unfreeze")[0] in (200, 204)
        nothing = {"accessToken": "", "envVars": {}, "defaultUser": "", "defaultWorkdir": ""}
        assert self.http("POST", "/init", json.dumps(nothing))[0] == 204
        self.headers = {}


@contextmanager
def guest(layout, image: str, timeout_s: float = TIMEOUT_S, **options) -> Iterator[GuestAgent]:
    """The agent of a guest that is booted for the block.

    timeout_s: of each wait for it. options: of its SandboxSpec.
    """
    spec = SandboxSpec(id=new_sandbox_id(), image=image, **options)
    parts = LocalSandboxes(Config(data_dir=layout.data_dir), print).parts(spec)
    machine = Machine.boot(spec, parts, Timings())
    try:
        machine.envd.init(token="")
        peer = machine.envd.peer
        yield GuestAgent(peer.address, peer.port, timeout_s=timeout_s)
    finally:
        machine.close()


@contextmanager
def second(agent: Agent, prefix: str = "") -> Iterator[Agent]:
    """Another agent in the same guest, started by the first one as a command of root.

    prefix: shell words before its own.
    """
    argv = agent.told("cmdline").split("\0")[:-1]
    argv[argv.index("--port") + 1] = str(SECOND_PORT)
    with agent.start(
        "/bin/sh", "-c", f"{prefix} exec {shlex.join(argv)}", headers=agent.as_root
    ) as stream:
        while b"listening on" not in stream.output["stdout"]:
            assert stream.next() is not None, stream.output
        try:
            yield Agent(agent.address, SECOND_PORT, timeout_s=agent.timeout_s)
        finally:
            selector = {"process": {"pid": stream.pid}}
            assert agent.rpc("SendSignal", selector | {"signal": 9}) == (200, {})
            stream.rest()


@pytest.fixture
def fresh_agent(agent, folder):
    """The guest's own, which has forgotten all; folder: made before it, and removed after it."""
    yield agent
    agent.forget()


@pytest.fixture
def freezable(agent):
    """Every guest has groups."""
    return agent


@pytest.fixture
def new_agent(agent):
    """One that was just started."""
    with second(agent) as other:
        yield other


@pytest.fixture
def limited_agent(agent):
    """One that may have 24 descriptors."""
    with second(agent, "ulimit -n 24;") as other:
        yield other


@pytest.fixture
def restorable(fresh_agent):
    """A guest whose identity changes is another one afterwards: its files are put back."""
    tree = Tree(fresh_agent, "")
    former = {path: tree.read(path.removeprefix("/")) for path in CHANGED}
    tree.sh(f"mkdir -p {HOOKS}")
    yield fresh_agent
    fresh_agent.forget()
    tree.sh(f"rm -rf {HOOKS} {' '.join(CHANGED)}")
    for path, text in former.items():
        if text is not None:
            tree.write(path.removeprefix("/"), text)


@pytest.fixture
def tree(restorable):
    """The guest's own."""
    return Tree(restorable, "")
