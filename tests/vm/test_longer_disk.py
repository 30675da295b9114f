"""Disks that are longer than what they are made of, as their guests see them.

One guest is booted with one, frozen as a template, and another is made of that with a still longer
one. No filesystem is resized by anybody but the guest that has it mounted.
"""

import contextlib
import os

import pytest

from leaks import LeakCheck
from wrennd.core.config import Config
from wrennd.core.errors import GuestFailed, InvalidInput
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxRequest
from wrennd.core.sandboxes import Exit, Output
from wrennd.core.timings import Timings
from wrennd.host.local import LocalSandboxes
from wrennd.host.local_snapshots import LocalSnapshots
from wrennd.host.machine import Machine
from wrennd.host.record import load

BOOTED_MIB, SPAWNED_MIB = 5000, 7000
TEMPLATE = "longer-disk-test"
# Behind the end of the base, and where the filesystem begins.
WRITE = "cd /home/user; head -c 3000000 /dev/urandom > data; md5sum data > sum; sync"
CHECK = "cd /home/user; echo 3 > /proc/sys/vm/drop_caches; md5sum -c sum | grep -v OK; true"
SIZES = "cat /sys/block/vda/size; df -m / | tail -n 1"


def run(sandboxes, sandbox_id, script):
    command = Command(argv=("sh", "-c", script), user="root")
    with sandboxes.connect(sandbox_id) as sandbox, sandbox.start(command) as running:
        events = list(running.events())
    said = b"".join(event.data for event in events if isinstance(event, Output)).decode()
    assert events[-1] == Exit(0), said
    return said


@pytest.fixture(scope="module")
def sandboxes(layout):
    return LocalSandboxes(Config(data_dir=layout.data_dir), print)


def make(sandboxes, **wanted):
    made = new_sandbox_id()
    sandboxes.create(SandboxRequest(id=made, **wanted), Timings())
    return made


@pytest.fixture(scope="module")
def shared_world(sandboxes):
    """The booted one, whose filesystem has data, and the template."""
    check = LeakCheck()
    check.watch(sandboxes.layout.installation, sandboxes.layout.sandboxes)
    made = make(sandboxes, template="busybox", mem_mib=128, disk_mib=BOOTED_MIB)
    snapshots = LocalSnapshots(sandboxes)
    try:
        run(sandboxes, made, WRITE)
        snapshots.create(made, TEMPLATE, Timings())
        yield made
    finally:
        with contextlib.suppress(LookupError):
            snapshots.remove(TEMPLATE)
        sandboxes.kill(made)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    check.finish()


def sizes(sandboxes, sandbox_id):
    """MiB: of the disk, and of the filesystem."""
    sectors, table = run(sandboxes, sandbox_id, SIZES).split("\n", 1)
    return int(sectors) >> 11, int(table.split()[1])


def test_a_booted_guest_has_all_of_its_disk(sandboxes, shared_world):
    disk, filesystem = sizes(sandboxes, shared_world)
    assert disk == BOOTED_MIB
    assert BOOTED_MIB * 0.95 < filesystem <= BOOTED_MIB


def test_a_restored_one_is_told_of_a_longer_disk_and_keeps_its_data(sandboxes, shared_world):
    made = make(sandboxes, template=TEMPLATE, disk_mib=SPAWNED_MIB)
    try:
        disk, filesystem = sizes(sandboxes, made)
        assert disk == SPAWNED_MIB
        assert SPAWNED_MIB * 0.95 < filesystem <= SPAWNED_MIB
        assert run(sandboxes, made, CHECK) == ""
        run(sandboxes, made, WRITE)
        sandboxes.pause(made, Timings())
        sandboxes.resume(made, Timings())
        assert sizes(sandboxes, made) == (disk, filesystem)
        assert run(sandboxes, made, CHECK) == ""
    finally:
        sandboxes.kill(made)
    assert sizes(sandboxes, shared_world)[0] == BOOTED_MIB


@pytest.mark.long
def test_without_a_length_it_is_that_of_the_template(sandboxes, shared_world):
    made = make(sandboxes, template=TEMPLATE)
    try:
        assert sizes(sandboxes, made) == sizes(sandboxes, shared_world)
    finally:
        sandboxes.kill(made)


def test_a_shorter_one_is_refused_and_leaves_nothing(sandboxes, shared_world):
    before = {path.name for path in sandboxes.layout.sandboxes.iterdir()}
    for template, mib in (("busybox", 100), (TEMPLATE, BOOTED_MIB - 1)):
        with pytest.raises(InvalidInput, match=f"{mib} MiB is too small"):
            make(sandboxes, template=template, disk_mib=mib)
    assert {path.name for path in sandboxes.layout.sandboxes.iterdir()} == before


@pytest.mark.long
def test_a_disk_that_does_not_become_longer_is_said(sandboxes, shared_world):
    machine = Machine.adopt(sandboxes.layout, load(sandboxes.layout.sandbox(shared_world)))
    try:
        machine.envd.grow(BOOTED_MIB << 20)  # it is as long already
        with pytest.raises(GuestFailed, match="was to have"):
            machine.envd.grow((BOOTED_MIB + 1) << 20)
    finally:
        machine.close()
