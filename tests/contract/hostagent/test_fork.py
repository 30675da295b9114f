"""What every host agent does when a sandbox is forked."""

import pytest

from agent_client import refused
from wrennd.core.errors import AlreadyExists, InvalidInput, NotFound, WrongState
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import MAX_CHILDREN
from wrennd.gen.hostagent.hostagent_pb import (
    Call,
    Expiry,
    ForkSandboxRequest,
    PauseSandboxRequest,
)

IDLE_HOUR = Expiry(after=Expiry.After.IDLE, seconds=3600, action=Expiry.Action.DESTROY)


def ids(count):
    return [new_sandbox_id() for _ in range(count)]


def fork(world, sandbox_id, child_ids, **more):
    return world.client.fork_sandbox(
        ForkSandboxRequest(sandbox_id=sandbox_id, child_ids=child_ids, **more)
    )


@pytest.fixture(scope="module")
def source(world):
    made = world.create(env={"COLOUR": "green"})
    yield made
    world.destroy(made.id)


def test_a_fork_of_a_fork(world, source):
    call = Call(idempotency_key=new_sandbox_id(), expected_revision=source.revision)
    wanted = ids(2)
    answer = fork(world, source.id, wanted, call=call, expiry=IDLE_HOUR)
    assert (answer.sandbox.id, answer.sandbox.state) == (source.id, "running")
    assert answer.sandbox.generation == 1
    assert answer.sandbox.revision > source.revision
    assert world.run(source.id, "echo", "source").stdout == b"source\n"
    assert answer.phases
    assert [child.sandbox_id for child in answer.children] == wanted
    for child in answer.children:
        assert not child.error
        assert child.phases
        assert "access token" in child.unique
        assert any("in memory" in what for what in child.shared)
        found = child.sandbox
        assert (found.state, found.source) == ("running", source.id)
        assert (found.template, found.mem_mib) == (source.template, source.mem_mib)
        assert found.expiry == IDLE_HOUR
        assert found.address not in ("", source.address)
        assert b"COLOUR=green" in world.run(found.id, "env").stdout
    again = fork(world, source.id, wanted, call=call, expiry=IDLE_HOUR)
    assert again.sandbox.revision == answer.sandbox.revision

    first, second = wanted
    below = fork(world, first, ids(1)).children[0].sandbox
    assert below.source == first
    world.destroy(first)
    assert world.run(second, "echo", "second").stdout == b"second\n"
    assert world.run(below.id, "echo", "below").stdout == b"below\n"
    for child in (second, below.id):
        world.destroy(child)


def test_a_fork_of_a_paused_one_does_not_wake_it(world, sandbox):
    paused = world.client.pause_sandbox(PauseSandboxRequest(sandbox_id=sandbox.id)).sandbox
    answer = fork(world, sandbox.id, ids(1))
    assert (answer.sandbox.state, answer.sandbox.revision) == ("paused", paused.revision)
    child = answer.children[0].sandbox
    assert world.run(child.id, "echo", "child").stdout == b"child\n"
    world.destroy(child.id)


def test_what_is_refused(world, source):
    revision = world.get(source.id).revision
    for wanted in ([], ids(MAX_CHILDREN + 1), [*ids(1)] * 2, [source.id], ["short"]):
        with refused(InvalidInput):
            fork(world, source.id, wanted)
    with refused(AlreadyExists):
        other = world.create()
        fork(world, source.id, [*ids(1), other.id])
    world.destroy(other.id)
    with refused(NotFound):
        fork(world, new_sandbox_id(), ids(1))
    with refused(WrongState):
        fork(world, source.id, ids(1), call=Call(expected_revision=revision + 1))
    assert world.get(source.id).revision == revision
