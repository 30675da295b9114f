"""Pause, resume and snapshot: at whatever step one fails or dies, nothing is lost or left.

One guest serves most of these tests. In it a program counts, and a file in memory and one on disk
have known contents: after each failure it must have gone on, with all its data.
"""

import dataclasses
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from leaks import LeakCheck
from reaping import reap
from wrennd.core.config import Config
from wrennd.core.deadline import Deadline
from wrennd.core.errors import SnapshotBroken, SnapshotIncompatible, WrongState
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxRequest
from wrennd.core.sandboxes import Exit, Output
from wrennd.core.states import State
from wrennd.core.timings import Timings
from wrennd.host import making, record
from wrennd.host.checkpoint import GOING_ON, PASSING, STOPPED, WRITING
from wrennd.host.lifecycle import PARTING, Lifecycle
from wrennd.host.local import LocalSandboxes
from wrennd.host.local_snapshots import LocalSnapshots
from wrennd.host.reclaim import on_this_host, reclaim
from wrennd.linux import process
from wrennd.snapshot import store
from wrennd.snapshot.manifest import Manifest

PREPARE = """
cd /home/user
head -c 3000000 /dev/urandom > /dev/shm/memory; md5sum /dev/shm/memory > memory.sum
head -c 3000000 /dev/urandom > disk; md5sum disk > disk.sum; sync
(n=0; while :; do n=$((n + 1)); echo $n > /dev/shm/next; mv /dev/shm/next /dev/shm/count
 sleep 0.05; done) > /dev/null 2>&1 &
"""
CHECK = """
cd /home/user; md5sum -c memory.sum disk.sum 2>&1 | grep -v OK
was=$(cat /dev/shm/count)
until [ "$(cat /dev/shm/count)" -gt "$was" ]; do sleep 0.05; done
"""


def run(sandboxes, sandbox_id, script, user="user"):
    """What the script writes. It must succeed."""
    command = Command(argv=("sh", "-c", script), user=user)
    with sandboxes.connect(sandbox_id) as sandbox, sandbox.start(command) as running:
        events = list(running.events())
    said = b"".join(event.data for event in events if isinstance(event, Output)).decode()
    assert events[-1] == Exit(0), said
    return said


@pytest.fixture(scope="module")
def sandboxes(layout):
    return LocalSandboxes(Config(data_dir=layout.data_dir), print)


@pytest.fixture(scope="module")
def shared_world(sandboxes):
    """A running sandbox with the program in it; everything is gone in the end."""
    check = LeakCheck()
    check.watch(sandboxes.layout.installation, sandboxes.layout.sandboxes)
    made = new_sandbox_id()
    sandboxes.create(SandboxRequest(id=made, template="busybox", mem_mib=128), Timings())
    run(sandboxes, made, PREPARE)
    yield made
    sandboxes.kill(made)
    reap()
    check.finish()


@pytest.fixture
def guest(shared_world, sandboxes):
    """It runs and is whole before each test and after it."""
    yield shared_world
    if state(sandboxes, shared_world) is State.PAUSED:
        sandboxes.resume(shared_world, Timings())
    assert run(sandboxes, shared_world, CHECK) == ""


def found(sandboxes, sandbox_id):
    return record.load(sandboxes.layout.sandbox(sandbox_id))


def state(sandboxes, sandbox_id):
    return found(sandboxes, sandbox_id).state


class Planned(Exception):
    pass


def failing_at(name):
    def step(done):
        if done == name:
            raise Planned(name)

    return step


@contextmanager
def lifecycle(sandboxes, sandbox_id, step):
    with sandboxes.operation(sandbox_id) as journal:
        yield Lifecycle(sandboxes.layout, sandboxes.network, journal, step)


def pause(sandboxes, sandbox_id, step):
    with lifecycle(sandboxes, sandbox_id, step) as sandbox:
        sandbox.pause(Timings())


def resume(sandboxes, sandbox_id, step):
    with lifecycle(sandboxes, sandbox_id, step) as sandbox:
        sandbox.resume(sandboxes._ground_of, Timings())


def on_host(sandboxes, sandbox_id):
    """Whether there is anything that only a sandbox with a VM has."""
    ids = on_this_host(sandboxes.layout, sandboxes.network)
    paths = sandboxes.layout.sandbox(sandbox_id)
    return sandbox_id in ids or paths.disk.exists() or paths.disk_before.exists()


@pytest.mark.parametrize("name", STOPPED)
def test_a_pause_that_fails_leaves_it_running(sandboxes, guest, name):
    before = found(sandboxes, guest)
    paths = sandboxes.layout.sandbox(guest)
    with pytest.raises(Planned, match=name):
        pause(sandboxes, guest, failing_at(name))
    after = found(sandboxes, guest)
    assert (after.state, after.vmm_pid) == (State.RUNNING, before.vmm_pid)
    assert run(sandboxes, guest, CHECK) == ""
    if name == "committed":
        assert after.generation > before.generation
    elif before.generation:
        assert store.open_snapshot(paths.generation(before.generation))
    assert [path.name for path in paths.data.glob("*.tmp")] == []
    assert not any(paths.out.iterdir())


@pytest.mark.parametrize("name", ["disk", GOING_ON, "committed"])
def test_a_snapshot_that_fails_leaves_it_running(sandboxes, guest, name):
    check_snapshot_that_fails(sandboxes, guest, name)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_snapshot_that_fails_at_every_step(sandboxes, guest):
    for name in PASSING:
        check_snapshot_that_fails(sandboxes, guest, name)


def check_snapshot_that_fails(sandboxes, guest, name):
    """As of a pause; once the guest goes on it is RUNNING, and its next snapshot is Full unless
    this one was committed."""
    before = found(sandboxes, guest)
    paths = sandboxes.layout.sandbox(guest)
    states = []

    def step(done):
        states.append(state(sandboxes, guest))
        failing_at(name)(done)

    with (
        pytest.raises(Planned, match=name),
        lifecycle(sandboxes, guest, step) as sandbox,
    ):
        sandbox.snapshot(Timings())
    stopped = min(len(states), len(WRITING))
    assert states == [State.SNAPSHOTTING] * stopped + [State.RUNNING] * (len(states) - stopped)
    after = found(sandboxes, guest)
    assert (after.state, after.vmm_pid, after.pending) == (State.RUNNING, before.vmm_pid, 0)
    assert after.generation == before.generation + (name == "committed")
    was_asked = PASSING.index(name) > PASSING.index("stopped")
    is_ahead = was_asked or before.needs_full  # the VMM's count is of another moment
    assert after.needs_full == (is_ahead and name != "committed")
    assert run(sandboxes, guest, CHECK) == ""
    assert [path.name for path in paths.data.glob("*.tmp")] == []
    assert not any(paths.out.iterdir())


@pytest.mark.parametrize("name", [step for step in PARTING if step != "collapsed"])
def test_a_pause_that_fails_when_the_vm_is_gone_ends_paused(sandboxes, guest, name):
    with pytest.raises(Planned, match=name):
        pause(sandboxes, guest, failing_at(name))
    reclaim(sandboxes.layout, sandboxes.network)
    assert state(sandboxes, guest) is State.PAUSED
    assert not on_host(sandboxes, guest)
    paths = sandboxes.layout.sandbox(guest)
    assert store.generations(paths.data) == [found(sandboxes, guest).generation]


def test_a_resume_that_fails_at_any_step_leaves_it_paused(sandboxes, guest):
    sandboxes.pause(guest, Timings())
    before = found(sandboxes, guest)
    for name in making.STEPS:
        with pytest.raises(Planned, match=name):
            resume(sandboxes, guest, failing_at(name))
        after = found(sandboxes, guest)
        assert (after.state, after.generation) == (State.PAUSED, before.generation)
        assert not on_host(sandboxes, guest)


def test_what_a_pause_that_failed_had_taken_is_in_the_next_snapshot(sandboxes, guest):
    """The VMM has forgotten what was dirty, and the host has thrown it away: the next is Full."""
    with pytest.raises(Planned):
        pause(sandboxes, guest, failing_at("memory"))
    assert found(sandboxes, guest).needs_full
    sandboxes.pause(guest, Timings())
    assert not found(sandboxes, guest).needs_full
    sandboxes.resume(guest, Timings())


KILLED = """
import os, signal, sys
from wrennd.core.config import Config
from wrennd.core.timings import Timings
from wrennd.host.lifecycle import Lifecycle
from wrennd.host.local import LocalSandboxes
from pathlib import Path

data_dir, sandbox_id, what, name = sys.argv[1:]

def step(done):
    if done == name:
        os.kill(os.getpid(), signal.SIGKILL)

sandboxes = LocalSandboxes(Config(data_dir=Path(data_dir)), print)
with sandboxes.operation(sandbox_id) as journal:
    sandbox = Lifecycle(sandboxes.layout, sandboxes.network, journal, step)
    if what == "pause":
        sandbox.pause(Timings())
    elif what == "snapshot":
        sandbox.snapshot(Timings())
    else:
        sandbox.resume(sandboxes._ground_of, Timings())
"""


def killed_at(sandboxes, sandbox_id, what, name):
    """Do it in a process that has no guard, and that dies when the step is done."""
    arguments = [os.fspath(sandboxes.layout.data_dir), sandbox_id, what, name]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], timeout=150, check=False)
    assert done.returncode == -signal.SIGKILL


EVERY_KILL = [
    *(("pause", name) for name in (*STOPPED, *PARTING[:-1])),
    *(("snapshot", name) for name in PASSING),
    *(("resume", name) for name in making.STEPS),
]
SOME_KILLS = [
    ("pause", "memory"),
    ("pause", "freed"),
    ("snapshot", GOING_ON),
    ("snapshot", "committed"),
    ("resume", "vmm"),
]


def check_kill(sandboxes, guest, what, name):
    if what == "resume":
        sandboxes.pause(guest, Timings())
    killed_at(sandboxes, guest, what, name)
    assert reclaim(sandboxes.layout, sandboxes.network) in ([guest], [])
    if what == "resume" or (what == "pause" and name in PARTING):
        assert state(sandboxes, guest) is State.PAUSED
    else:
        assert state(sandboxes, guest) is State.RUNNING
    if state(sandboxes, guest) is State.PAUSED:
        assert not on_host(sandboxes, guest)
        sandboxes.resume(guest, Timings())
    assert run(sandboxes, guest, CHECK) == ""


@pytest.mark.parametrize(("what", "name"), SOME_KILLS)
def test_what_a_killed_command_left_is_finished_or_undone(sandboxes, guest, what, name):
    check_kill(sandboxes, guest, what, name)


@contextmanager
def other_manifest(sandboxes, sandbox_id, change):
    """Its snapshot says something else of itself."""
    number = found(sandboxes, sandbox_id).generation
    path = sandboxes.layout.sandbox(sandbox_id).generation(number) / "manifest.json"
    was = path.read_bytes()
    path.chmod(0o600)
    try:
        path.write_bytes(change(was))
        yield
    finally:
        path.write_bytes(was)
        path.chmod(0o444)


def with_vmm(**changes):
    def change(raw):
        manifest = Manifest.decode(raw)
        vmm = dataclasses.replace(manifest.facts.vmm, **changes)
        facts = dataclasses.replace(manifest.facts, vmm=vmm)
        return dataclasses.replace(manifest, facts=facts).encode()

    return change


MISFITS = [
    (with_vmm(kind="firecracker"), "firecracker"),
    (with_vmm(version="6.9"), "QEMU 6.9"),
    (with_vmm(snapshot_version="0.1"), "state is of version 0.1"),
    (with_vmm(devices=("block",)), "devices"),
    (lambda raw: raw.replace(b'"format": 1', b'"format": 2'), "format 2"),
]


def test_what_fits_no_vmm_here_is_refused_by_name(sandboxes, guest):
    sandboxes.pause(guest, Timings())
    for change, word in MISFITS:
        with (
            other_manifest(sandboxes, guest, change),
            pytest.raises(SnapshotIncompatible, match=word),
        ):
            sandboxes.resume(guest, Timings())
        assert state(sandboxes, guest) is State.PAUSED
    assert not on_host(sandboxes, guest)


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("what", ["pause", "snapshot", "resume"])
def test_a_command_killed_at_every_step(sandboxes, guest, what):
    for kind, name in EVERY_KILL:
        if kind == what:
            check_kill(sandboxes, guest, kind, name)


def test_a_lost_pager_is_an_error_and_the_last_snapshot_is_there(sandboxes, guest):
    sandboxes.pause(guest, Timings())
    sandboxes.resume(guest, Timings())
    now = found(sandboxes, guest)
    deadline = Deadline.after(20)
    process.kill_and_wait(now.pager_pid, now.pager_start_time, signal.SIGKILL, deadline)
    with pytest.raises(WrongState, match="served its memory has ended"):
        run(sandboxes, guest, "true")
    assert state(sandboxes, guest) is State.ERROR
    with pytest.raises(WrongState, match="is in error"):
        sandboxes.resume(guest, Timings())
    with pytest.raises(Planned), lifecycle(sandboxes, guest, failing_at("vmm")) as sandbox:
        sandbox.resume(sandboxes._ground_of, Timings(), discard=True)
    assert state(sandboxes, guest) is State.ERROR
    assert sandboxes.layout.sandbox(guest).disk.exists(), "what came since the snapshot"
    sandboxes.resume(guest, Timings(), discard=True)


def test_a_damaged_snapshot_is_named_and_the_disk_can_still_be_booted(sandboxes, guest):
    """A copy of the guest is damaged: a sandbox made of a template of it."""
    snapshots = LocalSnapshots(sandboxes)
    snapshots.create(guest, "lifecycle-test", Timings())
    made = new_sandbox_id()
    try:
        sandboxes.create(SandboxRequest(id=made, template="lifecycle-test"), Timings())
        run(sandboxes, made, "echo kept > /home/user/kept; sync")
        sandboxes.pause(made, Timings())
        paths = sandboxes.layout.sandbox(made)
        directory = paths.generation(found(sandboxes, made).generation)
        header = directory / "header"
        content = header.read_bytes()
        header.chmod(0o600)
        header.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(SnapshotBroken, match="header"):
            sandboxes.resume(made, Timings())
        assert state(sandboxes, made) is State.PAUSED
        assert any("header" in problem for problem in snapshots.verify(made))
        assert snapshots.verify("lifecycle-test") == ()
        sandboxes.resume(made, Timings(), cold=True)
        assert run(sandboxes, made, "cat /home/user/kept; ls /dev/shm") == "kept\n"
        sandboxes.pause(made, Timings())
        assert snapshots.verify(made) == (), "the first snapshot after a boot stands alone"
    finally:
        snapshots.remove("lifecycle-test")
        sandboxes.kill(made)


def test_a_chain_is_collapsed_when_it_is_long(sandboxes, guest):
    lengths, layout = [], sandboxes.layout
    for _ in range(3):
        with sandboxes.operation(guest) as journal:
            Lifecycle(layout, sandboxes.network, journal, max_incremental=1).pause(Timings())
        lengths.append(len(LocalSnapshots(sandboxes).show(guest).generations))
        sandboxes.resume(guest, Timings())
    assert max(lengths) == 2
    assert 1 in lengths
    paths = layout.sandbox(guest)
    assert store.generations(paths.data) == [found(sandboxes, guest).generation]
    assert LocalSnapshots(sandboxes).verify(guest) == ()
