"""A guest's memory, read back: what its agent makes of it.

Put together from the parts below the lifecycle, so that each step can be looked at. Memory comes
from a flat file, which is the simplest way back. One snapshot serves all tests.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from wrennd.core.config import Config
from wrennd.core.deadline import Deadline
from wrennd.core.errors import GuestFailed
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxSpec
from wrennd.core.sandboxes import Exit, Output
from wrennd.core.timings import Timings
from wrennd.host.boot_args import boot_args
from wrennd.host.envd_client import EnvdClient
from wrennd.host.local import LocalSandboxes
from wrennd.host.machine import Parts
from wrennd.network.slot import Slot, make_slot
from wrennd.vmm import vm
from wrennd.vmm.launch import Cell, RestoreFiles
from wrennd.vmm.vm import BootSpec, RestoreSpec, SnapshotKind, Vm

MEM_MIB = 192
READY_S = 120.0
LOOK = "cat /proc/sys/kernel/hostname /etc/machine-id /proc/sys/kernel/random/boot_id"
RANDOM = "head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n'"


@dataclass
class Guest:
    """A VM with a slot, a disk and an agent, that belongs to the test."""

    id: str
    vm: Vm
    envd: EnvdClient
    disk: Path

    def sh(self, script: str) -> str:
        with self.envd.start(Command(argv=("sh", "-c", script), user="root")) as started:
            *output, end = started.events()
        text = b"".join(one.data for one in output if isinstance(one, Output)).decode()
        assert end == Exit(0), text
        return text


@dataclass
class Snapshot:
    """What was kept of a guest, which is paused; a process in it counts, and is listened to."""

    source: Guest
    events: Iterator[Output | Exit]
    files: RestoreFiles
    disk: Path
    pid: int
    taken_at: float
    looked: str


class Workshop:
    """Makes guests in a directory; everything goes with `held`."""

    def __init__(self, parts: Parts, folder: Path, held: ExitStack) -> None:
        self.parts = parts
        self.folder = folder
        self.held = held

    def cell(self, sandbox_id: str, slot: Slot, restore: RestoreFiles | None) -> Cell:
        home = self.folder / sandbox_id
        (home / "run").mkdir(parents=True)
        (home / "out").mkdir()
        return Cell(
            id=sandbox_id,
            uid=slot.uid,
            run_dir=home / "run",
            kernel=self.parts.kernel.vmlinux if restore is None else None,
            initrd=self.parts.kernel.initrd if restore is None else None,
            disk=home / "disk",
            netns=slot.netns_path,
            cgroup_procs=None,
            dies_with_parent=True,
            max_file_bytes=self.parts.image.size_bytes,
            out_dir=home / "out",
            restore=restore,
        )

    def slot(self, held: ExitStack, sandbox_id: str) -> Slot:
        deadline = Deadline.after(60)
        return make_slot(
            held, self.parts.network, sandbox_id, dns=self.parts.dns, deadline=deadline
        )

    def boot(self, held: ExitStack) -> Guest:
        sandbox_id = new_sandbox_id()
        slot = self.slot(held, sandbox_id)
        cell = self.cell(sandbox_id, slot, None)
        self.parts.driver.create(self.parts.image.rootfs, cell.disk, uid=slot.uid)
        spec = BootSpec(
            vcpus=1,
            mem_mib=MEM_MIB,
            boot_args=boot_args(slot, hostname=sandbox_id),
            tap=slot.tap,
            mac=slot.guest_mac,
        )
        made = vm.start(held, self.parts.program, cell, spec, Timings())
        envd = EnvdClient(str(slot.address), vmm_pidfd=made.pidfd)
        envd.wait_ready(Deadline.after(READY_S))
        envd.init(token="snapshot", sandbox_id=sandbox_id)
        return Guest(sandbox_id, made, envd, cell.disk)

    def restore(self, snapshot: Snapshot) -> Guest:
        """Loaded and running, but not told anything yet."""
        sandbox_id = new_sandbox_id()
        slot = self.slot(self.held, sandbox_id)
        cell = self.cell(sandbox_id, slot, snapshot.files)
        self.parts.driver.clone(snapshot.disk, cell.disk, uid=slot.uid)
        made = vm.restore(self.held, self.parts.program, cell, RestoreSpec(tap=slot.tap), Timings())
        envd = EnvdClient(str(slot.address), token="snapshot", vmm_pidfd=made.pidfd)
        return Guest(sandbox_id, made, envd, cell.disk)


@pytest.fixture(scope="module")
def shared_world(layout, tmp_path_factory):
    spec = SandboxSpec(id=new_sandbox_id(), image="busybox", mem_mib=MEM_MIB)
    parts = LocalSandboxes(Config(data_dir=layout.data_dir), print).parts(spec)
    with ExitStack() as held:
        yield Workshop(parts, tmp_path_factory.mktemp("guests"), held)


@pytest.fixture(scope="module")
def snapshot(shared_world):
    """Of a frozen guest in which a process counts, and a client waits for what it says."""
    with ExitStack() as held:
        guest = shared_world.boot(held)
        guest.sh(
            "mkdir -p /etc/wrenn/resume.d; printf '%s\\n' '#!/bin/sh' "
            "'date +%s > /hook; cat /count >> /hook' > /etc/wrenn/resume.d/10-look; "
            "chmod 755 /etc/wrenn/resume.d/10-look"
        )
        # By a rename: it may be frozen at any moment, also when a file that it writes is empty.
        count = "echo $n > /count.new; mv /count.new /count; echo $n"
        script = f"n=0; while :; do n=$((n + 1)); {count}; sleep 0.05; done"
        counting = held.enter_context(
            guest.envd.start(Command(argv=("sh", "-c", script), user="root"))
        )
        events = counting.events()
        next(events)
        looked = guest.sh(LOOK)
        assert guest.envd.freeze(60.0)
        guest.vm.pause()
        made = guest.vm.snapshot(SnapshotKind.FULL, guest.disk.parent / "out")
        kept = shared_world.parts.driver.snapshot(guest.disk, guest.disk.parent / "kept")
        for path in (made.state, made.memory):
            path.chmod(0o444)
        files = RestoreFiles(state=made.state, memory=made.memory)
        yield Snapshot(guest, events, files, kept, counting.pid, time.time(), looked)


@pytest.fixture
def workshop(shared_world):
    """What a test makes goes with it."""
    with ExitStack() as held:
        yield Workshop(shared_world.parts, shared_world.folder, held)


def test_nobody_but_its_host_gets_anything_out_of_it(workshop, snapshot):
    guest = workshop.restore(snapshot)
    guest.envd.wait_ready(Deadline.after(READY_S))
    with pytest.raises(GuestFailed, match="frozen"):
        guest.envd.metrics()
    stranger = EnvdClient(guest.envd.peer.address, token="other", vmm_pidfd=guest.vm.pidfd)
    with pytest.raises(GuestFailed, match="refuses the access token"):
        stranger.init(token="mine", sandbox_id=guest.id, restored=True)
    told = guest.envd.init(token="new", sandbox_id=guest.id, restored=True)
    assert told.warnings == ()
    with pytest.raises(GuestFailed, match="frozen"):
        guest.envd.metrics()
    old = EnvdClient(guest.envd.peer.address, token="snapshot", vmm_pidfd=guest.vm.pidfd)
    with pytest.raises(GuestFailed, match="refuses the access token"):
        old.init(token="again", sandbox_id=guest.id, restored=True)
    guest.envd.unfreeze()
    assert guest.envd.metrics()["mem_total"] > 0


def test_time_and_processes_go_on_from_where_they_were(workshop, snapshot):
    guest = workshop.restore(snapshot)
    began = time.monotonic()
    told = guest.envd.init(token="new", sandbox_id=guest.id, restored=True)
    assert time.monotonic() - began < 30
    assert told.clock_error_s is not None
    assert told.clock_error_s < 0.1
    (hook,) = guest.envd.unfreeze()
    assert hook.is_ok
    hooked_at, counted = (int(line) for line in guest.sh("cat /hook").split())
    assert hooked_at >= int(snapshot.taken_at)
    # The process goes on; with whom it spoke is gone, and it may be joined again.
    assert int(guest.sh(f"kill -0 {snapshot.pid}; sleep 1; cat /count")) > counted
    # What it has of the host's time, it has everywhere.
    before = time.time()
    seen = float(guest.sh("date +%s"))
    assert before - 1.1 < seen < time.time() + 0.1


def test_guests_of_one_snapshot_are_not_one_another(workshop, snapshot):
    guests = [workshop.restore(snapshot) for _ in range(3)]
    for guest in guests:
        guest.envd.init(token=guest.id, sandbox_id=guest.id, restored=True)
        guest.envd.unfreeze()
    streams = [guest.sh(RANDOM) for guest in guests]
    assert len({*streams}) == 3
    assert {len(one) for one in streams} == {64}
    looked = [guest.sh(LOOK).split() for guest in guests] + [snapshot.looked.split()]
    for values in zip(*looked, strict=True):
        assert len({*values}) == 4, values
    for guest in guests:
        guest.sh(f"echo {guest.id} > /mine; sync")
    assert [guest.sh("cat /mine").strip() for guest in guests] == [one.id for one in guests]


def test_a_guest_whose_pause_came_to_nothing_goes_on_with_its_connections(snapshot):
    snapshot.source.vm.resume()
    assert snapshot.source.envd.unfreeze() == ()
    counted = int(snapshot.source.sh("cat /count"))
    numbers = (int(line) for event in snapshot.events for line in event.data.split())
    assert next(number for number in numbers if number > counted) > counted
    assert snapshot.source.sh("cat /hook 2>/dev/null || echo none") == "none\n"
