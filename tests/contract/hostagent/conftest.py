"""The worlds that the contract of host agents is held in: the real agent with real guests, and the
fake that the control plane is tested with.

A test that has `world` sees only the generated client. Commands that it runs are `echo`, `cat`,
`sleep`, `false`, `pwd`, `env` and `sh -c` with `exit N`, `echo`, `kill -9 $$`: what a fake has to
know of.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from agent_client import AgentProcess, UnixTransport, client, command
from fakes.host_agent import FakeHostAgent, serving
from leaks import LeakCheck
from wrennd.core.ids import new_sandbox_id
from wrennd.gen.hostagent.hostagent_connect import HostAgentServiceClientSync
from wrennd.gen.hostagent.hostagent_pb import (
    CreateSandboxRequest,
    DestroySandboxRequest,
    ExecRequest,
    ExecResponse,
    GetSandboxRequest,
    ListSandboxesRequest,
    Sandbox,
)

MEM_MIB = 128


@dataclass(frozen=True, kw_only=True)
class World:
    """An agent to call. is_real: its guests are guests. template: an image that is there."""

    client: HostAgentServiceClientSync
    transport: UnixTransport
    is_real: bool
    template: str

    def wanted(self, **more) -> CreateSandboxRequest:
        return CreateSandboxRequest(
            sandbox_id=new_sandbox_id(), template=self.template, mem_mib=MEM_MIB, **more
        )

    def create(self, **more) -> Sandbox:
        return self.client.create_sandbox(self.wanted(**more)).sandbox

    def get(self, sandbox_id: str) -> Sandbox:
        return self.client.get_sandbox(GetSandboxRequest(sandbox_id=sandbox_id)).sandbox

    def destroy(self, sandbox_id: str) -> None:
        self.client.destroy_sandbox(DestroySandboxRequest(sandbox_id=sandbox_id))

    def listed(self) -> dict[str, Sandbox]:
        found = self.client.list_sandboxes(ListSandboxesRequest()).sandboxes
        return {sandbox.id: sandbox for sandbox in found}

    def run(self, sandbox_id: str, *argv: str, **more) -> ExecResponse:
        return self.client.exec(ExecRequest(sandbox_id=sandbox_id, command=command(*argv), **more))


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.vm)])
def world(request, tmp_path_factory) -> Iterator[World]:
    """Ends with all its sandboxes, and leaves nothing behind."""
    if request.param == "fake":
        yield from _fake(tmp_path_factory.mktemp("agent"))
    else:
        yield from _real(request.getfixturevalue("layout"), tmp_path_factory.mktemp("agent"))


def _fake(folder) -> Iterator[World]:
    path = folder / "agent.sock"
    with serving(FakeHostAgent(), path):
        yield World(
            client=client(path), transport=UnixTransport(path), is_real=False, template="base"
        )


def _real(layout, folder) -> Iterator[World]:
    check = LeakCheck()
    check.watch(layout.installation, layout.sandboxes)
    agent = AgentProcess(layout.data_dir, folder)
    agent.start()
    try:
        found = World(
            client=agent.client,
            transport=UnixTransport(agent.socket),
            is_real=True,
            template="busybox",
        )
        yield found
        for sandbox_id in found.listed():
            found.destroy(sandbox_id)
        assert agent.stop() == 0
    finally:
        agent.close()
    check.finish()


@pytest.fixture(scope="module")
def shared(world) -> Sandbox:
    """A sandbox for all tests of a module that change nothing about it."""
    return world.create()


@pytest.fixture
def sandbox(world) -> Iterator[Sandbox]:
    """A sandbox for one test."""
    made = world.create()
    yield made
    world.destroy(made.id)
