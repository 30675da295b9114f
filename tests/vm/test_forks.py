"""Forks of real guests: children are whole and themselves, their source notices next to nothing.

One source serves all tests. In it a program counts, and a file in memory and one on disk have
known contents; so have its children, from the same count on.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from leaks import LeakCheck
from reaping import reap
from wrennd.core.config import Config
from wrennd.core.errors import InvalidInput, NotFound, SnapshotBroken, WrongState
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxRequest
from wrennd.core.sandboxes import Exit, Output
from wrennd.core.states import State
from wrennd.core.timings import Timings
from wrennd.host import forks, record
from wrennd.host.envd_client import EnvdClient
from wrennd.host.lifecycle import Lifecycle
from wrennd.host.local import LocalSandboxes
from wrennd.host.local_snapshots import LocalSnapshots
from wrennd.host.reclaim import on_this_host, reclaim

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
IDENTITY = """
hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id /run/wrenn/sandbox-id
echo "$WRENN_SANDBOX_ID"; head -c 16 /dev/urandom | md5sum
"""


def run(sandboxes, sandbox_id, script, user="user"):
    """What the script writes. It must succeed."""
    command = Command(argv=("sh", "-c", script), user=user)
    with sandboxes.connect(sandbox_id) as sandbox, sandbox.start(command) as running:
        events = list(running.events())
    said = b"".join(event.data for event in events if isinstance(event, Output)).decode()
    assert events[-1] == Exit(0), said
    return said


def found(sandboxes, sandbox_id):
    return record.load(sandboxes.layout.sandbox(sandbox_id))


@pytest.fixture(scope="module")
def sandboxes(layout):
    return LocalSandboxes(Config(data_dir=layout.data_dir), print)


@pytest.fixture(scope="module")
def shared_world(sandboxes):
    check = LeakCheck()
    check.watch(sandboxes.layout.installation, sandboxes.layout.sandboxes)
    made = new_sandbox_id()
    request = SandboxRequest(id=made, template="busybox", mem_mib=128, env={"COLOUR": "green"})
    sandboxes.create(request, Timings())
    run(sandboxes, made, PREPARE)
    yield made
    for each in sandboxes.list():
        sandboxes.kill(each.id)
    reap()
    check.finish()


@pytest.fixture
def source(shared_world, sandboxes):
    """It runs and is whole before each test and after it; its children end with the test."""
    yield shared_world
    for each in sandboxes.list():
        if each.id != shared_world:
            sandboxes.kill(each.id)
    assert run(sandboxes, shared_world, CHECK) == ""


def fork(sandboxes, sandbox_id, count=1):
    """The children, all of which are made."""
    children = sandboxes.fork(sandbox_id, count, Timings())
    assert [child.error for child in children] == [None] * count
    return [child.id for child in children]


def test_children_are_whole_and_themselves(sandboxes, source):
    before = found(sandboxes, source)
    timings = Timings()
    with sandboxes.connect(source) as sandbox:
        cat = Command(argv=("cat",), user="user", has_stdin=True)
        with sandbox.start(cat) as running:
            children = sandboxes.fork(source, 3, timings)
            assert running.send_stdin(b"still here\n")
            running.close_stdin()
            said = list(running.events())
    assert said[-1] == Exit(0)
    assert b"".join(one.data for one in said[:-1]) == b"still here\n"
    assert list(timings.phases_ms).count("write") == 1
    assert {"freeze", "stop", "write", "disk", "resume", "keep", "children"} <= set(
        timings.phases_ms
    )
    after = found(sandboxes, source)
    assert (after.vmm_pid, after.state) == (before.vmm_pid, State.RUNNING)
    assert after.generation == before.generation + 1

    assert [child.error for child in children] == [None] * 3
    ids = [child.id for child in children]
    for child in children:
        assert child.unique == forks.UNIQUE
        assert child.shared == forks.SHARED
        assert {"share", "vmm_load"} & set(child.timings.phases_ms)
        made = found(sandboxes, child.id)
        assert (made.source, made.template, made.mem_mib) == (source, "busybox", 128)
        assert made.env == {"COLOUR": "green"}
        assert run(sandboxes, child.id, CHECK) == ""
        assert run(sandboxes, child.id, "echo $COLOUR") == "green\n"
        said = run(sandboxes, child.id, IDENTITY).split("\n")
        assert (said[0], said[3], said[4]) == (child.id,) * 3
    identities = [run(sandboxes, each, IDENTITY).split("\n") for each in (source, *ids)]
    for values in zip(*identities, strict=True):
        assert len(set(values)) == (4 if values[0] else 1)

    for each in (source, *ids):
        run(sandboxes, each, f"echo {each} | tee /home/user/mine > /dev/shm/mine; sync")
    for each in (source, *ids):
        assert run(sandboxes, each, "cat /home/user/mine /dev/shm/mine") == f"{each}\n" * 2
    check_tokens(sandboxes, [source, *ids])

    below = fork(sandboxes, ids[0])[0]
    assert found(sandboxes, below).source == ids[0]
    assert run(sandboxes, below, "cat /dev/shm/mine") == f"{ids[0]}\n"
    for each in ids:
        sandboxes.kill(each)
    assert run(sandboxes, below, CHECK) == ""
    sandboxes.pause(below, Timings())
    assert LocalSnapshots(sandboxes).verify(below) == ()
    sandboxes.resume(below, Timings())
    assert run(sandboxes, below, CHECK) == ""


def test_a_child_that_cannot_be_begun_is_alone_with_that(sandboxes, source):
    """Whatever the filesystem says: here that its directory is there already."""
    taken, free = new_sandbox_id(), new_sandbox_id()
    in_the_way = sandboxes.layout.sandbox(taken).data
    with ExitStack() as held:
        in_the_way.mkdir()
        held.callback(in_the_way.rmdir)
        with sandboxes.operation(source) as journal:
            wanted = [forks.Wanted(id=taken), forks.Wanted(id=free)]
            begun = sandboxes.fork_held(held, journal, wanted, lambda _: None, Timings())
        ends = {child.id: child.error for child in forks.finish(begun)}
    assert taken in str(ends[taken])
    assert ends[free] is None
    assert run(sandboxes, free, CHECK) == ""


def check_tokens(sandboxes, ids):
    """Nobody's opens another's agent."""
    tokens = [sandboxes.layout.sandbox(each).token.read_text() for each in ids]
    assert len(set(tokens)) == len(ids)
    for each in ids[1:]:
        stranger = EnvdClient(found(sandboxes, each).address, token=tokens[0])
        with pytest.raises(InvalidInput, match="access token"):
            stranger.metrics()


def test_a_paused_one_is_not_woken(sandboxes, source):
    (child,) = fork(sandboxes, source)
    sandboxes.pause(child, Timings())
    before = found(sandboxes, child)
    timings = Timings()
    made = sandboxes.fork(child, 2, timings)
    assert "freeze" not in timings.phases_ms
    assert found(sandboxes, child) == before
    assert child not in on_this_host(sandboxes.layout, sandboxes.network)
    for each in made:
        assert each.error is None
        assert run(sandboxes, each.id, CHECK) == ""


def test_what_is_refused(sandboxes, source):
    for count in (0, 21):
        with pytest.raises(InvalidInput, match="children"):
            sandboxes.fork(source, count, Timings())
    with pytest.raises(NotFound):
        sandboxes.fork(new_sandbox_id(), 1, Timings())
    (child,) = fork(sandboxes, source)
    vmm = found(sandboxes, child).vmm_pid
    os.kill(vmm, signal.SIGKILL)
    os.waitpid(vmm, 0)
    with pytest.raises(WrongState, match="in error"):
        sandboxes.fork(child, 1, Timings())


def test_each_child_has_its_own_end(sandboxes, source):
    """One whose state is damaged is not made; the others are."""
    wanted = [forks.Wanted(id=new_sandbox_id()) for _ in range(3)]
    with ExitStack() as held:
        fork = begun(sandboxes, source, held, wanted)
        sandboxes.layout.sandbox(wanted[1].id).generation(1).joinpath("state").unlink()
        done = {child.id: child for child in forks.finish(fork)}
    assert [done[each.id].error is None for each in wanted] == [True, False, True]
    assert not sandboxes.layout.sandbox(wanted[1].id).data.exists()
    for each in (wanted[0], wanted[2]):
        assert run(sandboxes, each.id, CHECK) == ""


def begun(sandboxes, source, held, wanted):
    with sandboxes.operation(source) as journal:
        return sandboxes.fork_held(held, journal, wanted, lambda _child: None, Timings())


def test_children_that_are_never_finished_leave_nothing(sandboxes, source):
    wanted = [forks.Wanted(id=new_sandbox_id()) for _ in range(2)]
    with ExitStack() as held:
        begun(sandboxes, source, held, wanted)
        assert found(sandboxes, wanted[0].id).state is State.STARTING
    for each in wanted:
        assert not sandboxes.layout.sandbox(each.id).data.exists()


KILLED = """
import os, signal, sys
from contextlib import ExitStack
from pathlib import Path
from wrennd.core.config import Config
from wrennd.core.timings import Timings
from wrennd.host import forks
from wrennd.host.local import LocalSandboxes

data_dir, source, *ids = sys.argv[1:]
sandboxes = LocalSandboxes(Config(data_dir=Path(data_dir)), print)
with ExitStack() as held:
    wanted = [forks.Wanted(id=child) for child in ids]
    with sandboxes.operation(source) as journal:
        fork = sandboxes.fork_held(held, journal, wanted, lambda _child: None, Timings())
    first = forks.Fork(ground=fork.ground, begun=fork.begun[:1], failed=())
    print(forks.finish(first)[0].error, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_who_is_killed_between_two_children_leaves_the_one_that_is_whole(sandboxes, source):
    ids = [new_sandbox_id() for _ in range(3)]
    arguments = [os.fspath(sandboxes.layout.data_dir), source, *ids]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        timeout=150,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "None\n"), done.stderr
    assert sorted(reclaim(sandboxes.layout, sandboxes.network)) == sorted(ids[1:])
    assert run(sandboxes, ids[0], CHECK) == ""
    for each in ids[1:]:
        assert not sandboxes.layout.sandbox(each).data.exists()


def test_the_source_s_clock_is_right_afterwards(sandboxes, source):
    """However long it stood still."""
    stood_s = 3.0

    def step(name):
        if name == "written":
            time.sleep(stood_s)

    with sandboxes.operation(source) as journal:
        lifecycle = Lifecycle(sandboxes.layout, sandboxes.network, journal, step)
        lifecycle.snapshot(Timings())
    before = time.time()
    said = float(run(sandboxes, source, "date +%s"))
    assert said > before - stood_s / 2


def test_a_hook_that_fails_is_in_the_report(sandboxes, source):
    hook = "/etc/wrenn/resume.d/50-fails"
    script = (
        f"mkdir -p /etc/wrenn/resume.d; printf '#!/bin/sh\\nexit 3\\n' > {hook}; chmod +x {hook}"
    )
    run(sandboxes, source, script, user="root")
    try:
        (child,) = sandboxes.fork(source, 1, Timings())
        assert child.error is None
        assert child.shared[0] == "the hook 50-fails failed: exit status 3"
    finally:
        run(sandboxes, source, f"rm {hook}", user="root")


def test_a_damaged_generation_of_a_paused_one(sandboxes, source):
    (child,) = fork(sandboxes, source)
    sandboxes.pause(child, Timings())
    paths = sandboxes.layout.sandbox(child)
    paths.generation(found(sandboxes, child).generation).joinpath("manifest.json").unlink()
    with pytest.raises(SnapshotBroken):
        sandboxes.fork(child, 1, Timings())
    assert found(sandboxes, child).state is State.PAUSED
