"""`vmm/vm.py` with a guest: started, saved and restored where a VMM is confined."""

import os
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest

from leaks import LeakCheck
from page_handler import PageHandler
from vmm_guest import BLOCK, ToldGuest, make_initrd
from vmm_server import wait_until
from vmm_snapshots import data_pages, differing, overlaid
from wrennd.core.errors import VmmFailed, VmmRefused
from wrennd.core.timings import Timings
from wrennd.qemu_vmm.memory import Tracking, best_tracking
from wrennd.vmm import vm
from wrennd.vmm.launch import Cell, RestoreFiles
from wrennd.vmm.program import Tier, qemu
from wrennd.vmm.vm import BootSpec, RestoreSpec, SnapshotKind

UID = 1_879_098_777
MEM_MIB = 128
ARGS = "console=ttyS0 reboot=k panic=1 quiet rdinit=/test-init test=told"
# The lab has KVM, and a kernel on which dirty pages can't be told exactly.
PROGRAM = qemu(Tier.KVM if os.environ.get("WRENN_LAB") else Tier.EMULATED)
IS_EXACT = best_tracking() is Tracking.EXACT
pytestmark = pytest.mark.lab


class Told(ToldGuest):
    """Over no server of a test's, but a VM of ours."""

    def __init__(self, made, disk, number):
        self.vm, self.drive, self.number = made, disk, number
        self.console = made.run_dir / "console.log"

    def wait_for(self, words, timeout_s=90.0):
        def is_there():
            assert self.vm.process.exit_code is None, self.vm.describe_end()
            return words in self.text()

        wait_until(is_there, f"{words!r} on the console", timeout_s)


@pytest.fixture(scope="module")
def place():
    """Where the VMM's uid gets to, unlike pytest's own directory."""
    made = Path(tempfile.mkdtemp(prefix="vm-snapshots-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def new_cell(place, kernel):
    """Makes cells, each with directories of its own; all have one disk."""
    initrd, disk, names = place / "initrd", place / "disk", count()
    make_initrd(initrd, kernel.initrd.read_bytes())
    disk.write_bytes(b"0\n" + b"\n" * (BLOCK - 2))
    os.chown(disk, UID, UID)

    def make(**more):
        name = next(names)
        run, out = place / f"run{name}", place / f"out{name}"
        run.mkdir(mode=0o755)
        out.mkdir(mode=0o700)
        return Cell(
            id="test",
            uid=UID,
            run_dir=run,
            kernel=kernel.vmlinux,
            initrd=initrd,
            disk=disk,
            netns=None,
            cgroup_procs=None,
            dies_with_parent=True,
            max_file_bytes=MEM_MIB << 20,
            out_dir=out,
            **more,
        )

    return make


@dataclass(frozen=True)
class First:
    """A guest that was booted: where it is, what its data are, its first Diff, where only root
    gets to."""

    guest: Told
    cell: Cell
    data: str
    files: RestoreFiles


@pytest.fixture(scope="module")
def booted(new_cell, place):
    check = LeakCheck()
    with ExitStack() as held:
        cell = new_cell()
        spec = BootSpec(vcpus=1, mem_mib=MEM_MIB, boot_args=ARGS)
        guest = Told(vm.start(held, PROGRAM, cell, spec, Timings()), cell.disk, 0)
        guest.wait_for("READY")
        data = guest.run("dd if=/dev/urandom of=/data bs=64k count=16 2>/dev/null; md5sum /data")
        guest.vm.pause()
        files = guest.vm.snapshot(SnapshotKind.DIFF, cell.out_dir)
        yield First(guest, cell, data, kept(files, place / "kept"))
    check.finish()


def kept(files, directory):
    directory.mkdir(mode=0o700)
    for name in ("state", "memory"):
        shutil.copy(getattr(files, name), directory / name)
        (directory / name).chmod(0o444)
    return RestoreFiles(state=directory / "state", memory=directory / "memory")


@pytest.fixture
def first(booted):
    """Paused, before and after."""
    yield booted
    booted.guest.vm.pause()


@pytest.fixture
def held():
    with ExitStack() as stack:
        yield stack


def test_it_goes_on_and_the_next_diff_is_small_and_right(first):
    guest, out = first.guest, first.cell.out_dir
    guest.vm.resume()
    assert guest.run("md5sum /data") == first.data
    guest.vm.pause()
    diff = guest.vm.snapshot(SnapshotKind.DIFF, out)
    assert diff.memory.stat().st_uid == UID
    if IS_EXACT:
        assert len(data_pages(diff.memory)) < len(data_pages(first.files.memory)) / 4
    merged = overlaid(first.files.memory.read_bytes(), diff.memory)
    full = guest.vm.snapshot(SnapshotKind.FULL, out)
    assert differing(merged, full.memory.read_bytes()) == []


@pytest.mark.parametrize("backend", ["File", "Uffd"])
def test_restored_without_kernel_and_initrd(first, held, new_cell, backend):
    cell = replace(new_cell(restore=first.files), kernel=None, initrd=None)
    if backend == "Uffd":
        cell = replace(cell, restore=replace(first.files, memory=None))
        os.chown(cell.run_dir, UID, UID)
        handler = PageHandler(cell.run_dir / "uffd.sock", first.files.memory.read_bytes())
        os.chown(handler.path, UID, UID)
        held.enter_context(handler)
    timings = Timings()
    made = vm.restore(held, PROGRAM, cell, RestoreSpec(), timings)
    assert set(timings.phases_ms) == {"vmm_start", "vmm_load"}
    guest = Told(made, cell.disk, first.guest.number + 100)
    assert guest.run("md5sum /data") == first.data
    inside = {path.name for path in Path(f"/proc/{made.pid}/root/snapshot/in").iterdir()}
    assert inside == ({"state", "memory"} if backend == "File" else {"state"})
    made.pause()
    diff = made.snapshot(SnapshotKind.DIFF, cell.out_dir)
    if IS_EXACT:
        assert len(data_pages(diff.memory)) < len(data_pages(first.files.memory)) / 4
    merged = overlaid(first.files.memory.read_bytes(), diff.memory)
    full = made.snapshot(SnapshotKind.FULL, cell.out_dir)  # in the place of the Diff
    assert differing(merged, full.memory.read_bytes()) == []


def test_restored_it_may_wait(first, held, new_cell):
    cell = new_cell(restore=first.files)
    made = vm.restore(held, PROGRAM, cell, RestoreSpec(resume=False), Timings())
    assert made.client.describe().state == "Paused"
    made.resume()
    assert Told(made, cell.disk, first.guest.number + 200).run("md5sum /data") == first.data


def test_a_pager_that_is_not_there(first, held, new_cell):
    cell = new_cell(restore=replace(first.files, memory=None))
    with pytest.raises((VmmRefused, VmmFailed), match="Failed to connect to UDS Unix stream"):
        vm.restore(held, PROGRAM, cell, RestoreSpec(), Timings())


def test_a_damaged_state(first, held, new_cell, place):
    damaged = place / "damaged"
    damaged.write_bytes(first.files.state.read_bytes()[:-1])
    cell = new_cell(restore=replace(first.files, state=damaged))
    with pytest.raises((VmmRefused, VmmFailed), match="CRC64 validation failed"):
        vm.restore(held, PROGRAM, cell, RestoreSpec(), Timings())


def test_what_lies_in_the_way_of_a_snapshot_is_not_followed(first, tmp_path):
    """The directory is the VMM's own; a link in it leads nobody elsewhere."""
    out = first.cell.out_dir
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for name in ("state", "memory"):
        (out / name).unlink()
        (out / name).symlink_to(secret)
    files = first.guest.vm.snapshot(SnapshotKind.DIFF, out)
    assert not files.state.is_symlink()
    assert secret.read_text() == "secret"


def test_a_vm_that_another_process_started(first):
    made = first.guest.vm
    adopted = vm.adopt(made.pid, made.process.start_time, made.run_dir)
    try:
        adopted.pause()
        again = adopted.snapshot(SnapshotKind.DIFF, first.cell.out_dir)
        assert not (IS_EXACT and data_pages(again.memory))
        adopted.resume()
    finally:
        adopted.detach()
    assert first.guest.run("echo on") == "on"
