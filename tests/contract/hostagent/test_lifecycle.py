"""What every host agent does with sandboxes: create, pause, resume, freeze, destroy."""

import threading

from agent_client import refused
from wrennd.core.errors import AlreadyExists, InvalidInput, NotFound, WrongState
from wrennd.core.ids import new_sandbox_id
from wrennd.gen.hostagent.hostagent_pb import (
    Call,
    CreateSandboxRequest,
    CreateSnapshotRequest,
    DeleteSnapshotRequest,
    DestroySandboxRequest,
    Expiry,
    GetHostRequest,
    GetSandboxRequest,
    ListTemplatesRequest,
    PauseSandboxRequest,
    PingSandboxRequest,
    ResumeSandboxRequest,
    SetExpiryRequest,
)

IDLE_HOUR = Expiry(after=Expiry.After.IDLE, seconds=3600, action=Expiry.Action.DESTROY)


def pause(world, sandbox_id, **call):
    return world.client.pause_sandbox(PauseSandboxRequest(sandbox_id=sandbox_id, call=Call(**call)))


def resume(world, sandbox_id, **more):
    return world.client.resume_sandbox(ResumeSandboxRequest(sandbox_id=sandbox_id, **more))


def test_a_life(world):
    wanted = world.wanted(env={"COLOUR": "green"}, expiry=IDLE_HOUR)
    answer = world.client.create_sandbox(wanted)
    made = answer.sandbox
    assert (made.id, made.state, made.is_kept) == (wanted.sandbox_id, "running", True)
    assert (made.template, made.vcpus, made.mem_mib) == (world.template, 1, wanted.mem_mib)
    assert made.address
    assert made.revision > 0
    assert made.expiry == IDLE_HOUR
    assert made.expires_unix_ms >= made.active_unix_ms + 3_590_000
    assert answer.phases
    assert world.listed()[made.id].state == "running"
    assert world.run(made.id, "echo", "hello").stdout == b"hello\n"
    assert b"COLOUR=green" in world.run(made.id, "env").stdout

    paused = pause(world, made.id, expected_revision=world.get(made.id).revision).sandbox
    assert (paused.state, paused.address, paused.generation) == ("paused", "", 1)
    assert (paused.active_unix_ms, paused.expires_unix_ms) == (0, 0)
    assert paused.revision > made.revision
    assert world.listed()[made.id].state == "paused"
    with refused(WrongState) as error:
        world.run(made.id, "echo", "hello")
    assert "paused" in str(error.value)
    with refused(WrongState):
        pause(world, made.id)

    resumed = resume(world, made.id)
    assert resumed.sandbox.state == "running"
    assert resumed.sandbox.revision > paused.revision
    assert resumed.phases
    assert world.run(made.id, "echo", "again").stdout == b"again\n"
    with refused(WrongState):
        resume(world, made.id)

    gone = DestroySandboxRequest(sandbox_id=made.id)
    assert world.client.destroy_sandbox(gone).existed
    assert made.id not in world.listed()
    assert not world.client.destroy_sandbox(gone).existed
    with refused(NotFound):
        world.get(made.id)


def test_a_call_with_its_key_is_answered_once(world):
    wanted = world.wanted(call=Call(idempotency_key=new_sandbox_id()))
    answers = []

    def create():
        answers.append(world.client.create_sandbox(wanted).sandbox)

    both = [threading.Thread(target=create) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    create()
    assert [answer.revision for answer in answers] == [answers[0].revision] * 3
    with refused(InvalidInput):
        world.client.pause_sandbox(
            PauseSandboxRequest(sandbox_id=wanted.sandbox_id, call=wanted.call)
        )
    with refused(AlreadyExists):
        world.client.create_sandbox(CreateSandboxRequest(sandbox_id=wanted.sandbox_id))
    world.destroy(wanted.sandbox_id)


def test_another_revision_is_refused(world, shared):
    found = world.get(shared.id)
    with refused(WrongState):
        pause(world, shared.id, expected_revision=found.revision + 1)
    with refused(WrongState):
        world.client.destroy_sandbox(
            DestroySandboxRequest(
                sandbox_id=shared.id, call=Call(expected_revision=found.revision - 1)
            )
        )
    assert world.get(shared.id).revision == found.revision


def test_expiry_is_set_and_lifted(world, shared):
    found = world.client.set_expiry(
        SetExpiryRequest(
            sandbox_id=shared.id, expiry=Expiry(after=Expiry.After.DEADLINE, seconds=3600)
        )
    ).sandbox
    assert found.expiry.after == Expiry.After.DEADLINE
    assert found.expiry.action == Expiry.Action.PAUSE
    ends = found.expires_unix_ms
    assert ends
    world.client.ping_sandbox(PingSandboxRequest(sandbox_id=shared.id))
    assert world.get(shared.id).expires_unix_ms == ends
    lifted = world.client.set_expiry(SetExpiryRequest(sandbox_id=shared.id, expiry=Expiry()))
    assert lifted.sandbox.expires_unix_ms == 0


def test_a_ping_is_activity(world, shared):
    before = world.get(shared.id).active_unix_ms
    pinged = world.client.ping_sandbox(PingSandboxRequest(sandbox_id=shared.id)).sandbox
    assert pinged.active_unix_ms >= before
    with refused(NotFound):
        world.client.ping_sandbox(PingSandboxRequest(sandbox_id=new_sandbox_id()))


def test_a_template_makes_others_and_is_replaced(world, sandbox):
    name = f"t-{new_sandbox_id()}"

    def freeze(**more):
        return world.client.create_snapshot(
            CreateSnapshotRequest(sandbox_id=sandbox.id, name=name, **more)
        )

    answer = freeze()
    assert answer.sandbox.state == "running"
    assert (answer.template.name, answer.template.kind) == (name, "snapshot")
    assert answer.template.sandbox_id == sandbox.id
    with refused(AlreadyExists):
        freeze()
    again = freeze(overwrite=True, ends_paused=True)
    assert again.sandbox.state == "paused"
    listed = world.client.list_templates(ListTemplatesRequest()).templates
    assert [one.kind for one in listed if one.name == name] == ["snapshot"]
    assert [one.kind for one in listed if one.name == world.template] == ["image"]

    child = world.client.create_sandbox(
        CreateSandboxRequest(sandbox_id=new_sandbox_id(), template=name)
    ).sandbox
    assert (child.template, child.mem_mib) == (name, sandbox.mem_mib)
    assert world.run(child.id, "echo", "child").stdout == b"child\n"
    for wish in (CreateSandboxRequest(vcpus=2), CreateSandboxRequest(cold=True)):
        wish.sandbox_id, wish.template = new_sandbox_id(), name
        with refused(InvalidInput):
            world.client.create_sandbox(wish)
    world.client.delete_snapshot(DeleteSnapshotRequest(name=name))
    with refused(NotFound):
        world.client.delete_snapshot(DeleteSnapshotRequest(name=name))
    assert world.run(child.id, "echo", "child").exit_code == 0
    world.destroy(child.id)


def test_bad_values_are_refused(world):
    for wanted in (
        world.wanted(vcpus=33),
        world.wanted(env={"1": "x"}),
        world.wanted(disk_mib=1),
        world.wanted(dns=["nowhere"]),
        world.wanted(expiry=Expiry(seconds=1 << 31)),
        CreateSandboxRequest(sandbox_id="short", template=world.template),
        CreateSandboxRequest(sandbox_id=new_sandbox_id(), template=world.template, mem_mib=7),
        CreateSandboxRequest(sandbox_id=new_sandbox_id(), template="../x"),
    ):
        with refused(InvalidInput):
            world.client.create_sandbox(wanted)
        assert wanted.sandbox_id not in world.listed()
    with refused(NotFound):
        world.client.create_sandbox(
            CreateSandboxRequest(sandbox_id=new_sandbox_id(), template="no-such-template")
        )
    with refused(InvalidInput):
        world.client.get_sandbox(GetSandboxRequest(sandbox_id="x"))
    for call in (pause, resume):
        with refused(NotFound):
            call(world, new_sandbox_id())


def test_the_host_says_what_it_is(world):
    host = world.client.get_host(GetHostRequest())
    assert len(host.installation) == 6
    assert host.capacity.cpus > 0
    assert host.capacity.mem_mib > 0
    assert host.capacity.disk_bytes > host.capacity.disk_bytes_free > 0
