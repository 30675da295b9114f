"""A guest never goes on with wrong memory or a wrong disk: it checks all it has, and so do we.

Whenever it is paused, what the snapshot consists of is compared, byte for byte, with a dump of all
of its memory that the VMM makes while it stands still.
"""

from contextlib import ExitStack
from pathlib import Path

import pytest

from kept_sandbox import (
    KeptSandbox,
    Workload,
    differing_pages,
    pages_like,
    same,
    without_exact_tracking,
)
from small_filesystem import tmpfs
from swap_space import mapping_of_size, page_out, swap_space, swapped_kib
from wrennd.core.config import Config
from wrennd.core.deadline import Deadline
from wrennd.core.errors import NoCapacity, VmmRefused
from wrennd.core.ids import new_sandbox_id
from wrennd.core.states import State
from wrennd.core.timings import Timings
from wrennd.host import pagers
from wrennd.linux import files, process
from wrennd.network.slot import make_slot
from wrennd.snapshot.header import PAGE_SIZE, ZERO
from wrennd.snapshot.verify import verify
from wrennd.vmm import vm
from wrennd.vmm.launch import Cell, RestoreFiles
from wrennd.vmm.vm import RestoreSpec, SnapshotKind

MEM_MIB = 128
# Where Firecracker's second region begins, and QEMU's memory above its hole.
LOW_PAGES = (3 << 30) // PAGE_SIZE
EVERY_TRACKING = [
    pytest.param(same, id="exact"),
    pytest.param(without_exact_tracking, id="populated"),
]


@pytest.fixture
def make(sandboxes, layout):
    """Makes a sandbox."""
    made = []

    def sandbox(*, changed=same, mem_mib=MEM_MIB):
        made.append(KeptSandbox(sandboxes, Config(data_dir=layout.data_dir), changed))
        made[-1].create("busybox", mem_mib)
        return made[-1]

    yield sandbox
    for one in made:
        one.kill()


def cycle(workload, number, *, changes=600, **options):
    """Change, pause, go on, check: each second time with files as they are on the disk."""
    sandbox = workload.sandbox
    workload.step(number, changes)
    sandbox.pause(sandbox.check_against_full, **options)
    length = len(sandbox.newest().manifest.generations)
    sandbox.resume()
    if number % 2:
        workload.drop_cached_files()
    workload.check()
    return length


def test_a_guest_finds_all_it_had_and_snapshots_are_what_it_was(make):
    workload = Workload.start(make(), mib=16)
    lengths = [cycle(workload, number, max_incremental=2) for number in range(5)]
    assert lengths == [1, 2, 3, 1, 2]
    sandbox = workload.sandbox
    workload.step(5, 600)
    for number in (6, 7):
        sandbox.snapshot(sandbox.check_against_full_meanwhile)
        workload.check()
        workload.step(number, 600)
    sandbox.pause(sandbox.check_against_full)
    assert verify(sandbox.newest().directory) == ()


def test_the_same_when_dirty_pages_can_not_be_told(make):
    workload = Workload.start(make(changed=without_exact_tracking), mib=8)
    command_line = Path(f"/proc/{workload.sandbox.record.vmm_pid}/cmdline").read_bytes()
    assert b"--dirty-pages\0populated" in command_line
    assert [cycle(workload, number) for number in range(2)] == [1, 2]


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("changed", EVERY_TRACKING)
def test_twenty_five_cycles(make, changed):
    workload = Workload.start(make(changed=changed), mib=32)
    lengths = [cycle(workload, number, changes=1500) for number in range(25)]
    assert lengths == [*range(1, 12), 1, *range(2, 12), 1, 2, 3]
    workload.sandbox.pause()
    assert verify(workload.sandbox.newest().directory) == ()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_guest_with_memory_on_both_sides_of_the_hole(make):
    """Linux takes what lies above 4 GiB first: the workload fills that, and goes on below."""
    workload = Workload.start(make(mem_mib=3584), mib=700)
    workload.fill(1)
    for number in range(3):
        cycle(workload, number, changes=3000)
    table = workload.sandbox.newest().header.table
    for part in (table[:LOW_PAGES], table[LOW_PAGES:]):
        assert len(part) - part.count(ZERO) > 25_000


def test_a_page_that_the_guest_zeroed_reads_zero(make, tmp_path):
    """Also where the snapshot before had something there."""
    sandbox = make()
    content = bytes(range(1, 251)) * 17
    content = content[:PAGE_SIZE]
    source = tmp_path / "content"
    source.write_bytes(content * 1024)
    sandbox.upload(source, "/dev/shm/content")
    sandbox.pause()
    where = pages_like(sandbox.newest(), content)
    assert len(where) >= 1024
    sandbox.resume()
    sandbox.sh("dd if=/dev/zero of=/dev/shm/content bs=4k count=512 conv=notrunc 2>/dev/null")
    sandbox.pause(sandbox.check_against_full)
    newest = sandbox.newest()
    still = pages_like(newest, content)
    zeroed = [page for page in where if newest.header.table[page] == ZERO]
    assert len(zeroed) >= 512
    assert 512 <= len(still) <= len(where) - 512
    sandbox.resume()
    assert sandbox.sh("head -c 2097152 /dev/shm/content | tr -d '\\0' | wc -c").strip() == "0"
    (tmp_path / "rest").write_bytes(content * 512)
    sandbox.upload(tmp_path / "rest", "/dev/shm/rest")
    sandbox.sh("tail -c 2097152 /dev/shm/content | cmp - /dev/shm/rest")


def test_a_dump_of_all_memory_right_after_a_load_is_the_snapshot(make, tmp_path):
    """When next to nothing of it is there yet: reading it brings it."""
    sandbox = make()
    sandbox.pause()
    snapshot = sandbox.newest()
    with ExitStack() as held:
        loaded, pager = load_paused(held, sandbox, tmp_path)
        assert pager.stats().installed < snapshot.header.pages / 100
        full = loaded.snapshot(SnapshotKind.FULL, tmp_path / "out")
        assert differing_pages(snapshot, full.memory) == []
        diff = loaded.snapshot(SnapshotKind.DIFF, tmp_path / "out")
        with diff.memory.open("rb") as file:
            size = snapshot.header.size
            assert sum(end - start for start, end in files.data_runs(file.fileno(), size)) == 0


def load_paused(held, sandbox, directory):
    """The snapshot of a paused sandbox in a VMM of its own, where nothing has run yet."""
    snapshot, sandbox_id = sandbox.newest(), new_sandbox_id()
    ground, _ = sandbox.ground(snapshot.manifest.facts)
    slot = make_slot(held, ground.network, sandbox_id, dns=ground.dns, deadline=Deadline.after(60))
    for name in ("run", "out"):
        (directory / name).mkdir()
    cell = Cell(
        id=sandbox_id,
        uid=slot.uid,
        run_dir=directory / "run",
        kernel=None,
        initrd=None,
        disk=ground.driver.clone(snapshot.disk, directory / "disk", uid=slot.uid),
        netns=slot.netns_path,
        cgroup_procs=None,
        dies_with_parent=True,
        max_file_bytes=snapshot.disk.stat().st_size,
        out_dir=directory / "out",
        restore=RestoreFiles(state=snapshot.state, memory=None),
    )
    place = pagers.Place(
        run_dir=cell.run_dir, uid=slot.uid, dies_with_parent=True, has_balloon=False
    )
    pager = pagers.start(held, pagers.Source.of(snapshot), place)

    def get_ready(vmm_pidfd):
        pager.watch(vmm_pidfd)
        pager.wait_ready(Deadline.after(60))

    spec = RestoreSpec(tap=slot.tap, resume=False)
    loaded = vm.restore(
        held, ground.program, cell, spec, Timings(), vm.Calls(before_load=get_ready)
    )
    return loaded, pager


@pytest.mark.long
def test_what_the_host_had_swapped_out_is_in_the_snapshot(make):
    sandbox = make()
    workload = Workload.start(sandbox, mib=8)
    workload.fill(1)

    def swap_out_then_check(step):
        if step == "stopped":
            (qemu,) = children(sandbox.record.vmm_pid)
            page_out(qemu, *mapping_of_size(qemu, MEM_MIB << 20))
            if swapped_kib(qemu) < 8 << 10:
                pytest.fail(f"only {swapped_kib(qemu)} KiB were swapped out: this shows nothing")
        sandbox.check_against_full(step)

    with swap_space(MEM_MIB + 32):
        for number in range(2):
            workload.step(number, 300)
            sandbox.pause(swap_out_then_check)
            sandbox.resume()
            workload.check()


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_without_room_for_a_snapshot_it_goes_on_and_the_next_one_has_it_all(make):
    sandbox = make()
    workload = Workload.start(sandbox, mib=8)
    sandbox.pause()
    out = sandbox.paths.out
    out.rmdir()
    with tmpfs(out, 2048):
        sandbox.resume()
        workload.fill(1)
        retry_with_room = again_with_room(sandbox, out)
        sandbox.pause(retry_with_room)
        assert len(sandbox.newest().manifest.generations) == 2, "it was a Diff"
        sandbox.resume()
        workload.check()
        process.run(["mount", "-o", "remount,size=2048k", out], timeout_s=60)
        workload.step(1, 2000)
        with pytest.raises(NoCapacity, match="is full"):
            sandbox.pause()
        assert sandbox.record.state is State.RUNNING
        workload.check()
        process.run(["mount", "-o", "remount,size=512m", out], timeout_s=60)
        sandbox.pause(sandbox.check_against_full)
        sandbox.resume()
        workload.check()
        sandbox.pause()


def again_with_room(sandbox, out):
    """A step at which a Diff fails, before the one that is to be kept."""

    def step(name):
        if name == "stopped":
            with sandbox.vm() as stopped:
                with pytest.raises(VmmRefused, match="No space left"):
                    stopped.snapshot(SnapshotKind.DIFF, out)
                process.run(["mount", "-o", "remount,size=512m", out], timeout_s=60)
        sandbox.check_against_full(name)

    return step


@pytest.mark.long
def test_where_holes_are_not_exact_snapshots_are_full(make):
    """A tmpfs of huge pages: what lies beside a page that was written looks written, too."""
    sandbox = make()
    workload = Workload.start(sandbox, mib=8)
    workload.fill(1)
    sandbox.pause()
    sandbox.paths.out.rmdir()
    with tmpfs(sandbox.paths.out, 512 << 10, huge="always"):
        sandbox.resume()
        assert [cycle(workload, number) for number in range(2)] == [1, 1]
        sandbox.pause()
