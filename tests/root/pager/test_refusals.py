"""What a pager does not serve: damaged snapshots, and VMMs that have been taken over."""

import fcntl
import json
import os
import struct
import time
from pathlib import Path

import pytest

from pager_guest import (
    PAGE,
    Guest,
    make_snapshot,
    page_content,
    place,
    random_table,
    strange_vmm,
    was_killed,
)
from wrennd.core.deadline import Deadline
from wrennd.core.errors import SnapshotBroken, VmmFailed
from wrennd.host import pagers
from wrennd.host.pagers import Source
from wrennd.linux import process
from wrennd.linux.cgroup import Hierarchy
from wrennd.pager.keeper import BROKEN, FATAL, GONE

PAGES = 1000
BASE = 0x7F00_0000_0000


@pytest.fixture
def snapshot(tmp_path):
    return make_snapshot(tmp_path, random_table(PAGES, builds=3, seed=5))


def has_ended(pager):
    return pager.process.wait(Deadline.after(60))


# Snapshots


def flip_a_byte(snapshot):
    header = bytearray(snapshot.header.encode())
    header[len(header) // 2] ^= 1
    return Source(header=bytes(header), memfiles=snapshot.memfiles)


def cut_the_header(snapshot):
    return Source(header=snapshot.header.encode()[:-1], memfiles=snapshot.memfiles)


def lose_the_header(snapshot):
    return Source(header=b"", memfiles=snapshot.memfiles)


def lose_a_file(snapshot):
    snapshot.memfiles[1].unlink()
    return snapshot.source()


def name_fewer_files(snapshot):
    return Source(header=snapshot.header.encode(), memfiles=snapshot.memfiles[:-1])


def shorten_a_file(snapshot):
    os.truncate(snapshot.memfiles[1], PAGES * PAGE - 1)
    return snapshot.source()


def give_a_directory(snapshot):
    snapshot.memfiles[1].unlink()
    snapshot.memfiles[1].mkdir()
    return snapshot.source()


def give_a_link(snapshot):
    """A link could lead to anything; snapshots hold files."""
    snapshot.memfiles[1].rename(snapshot.memfiles[1].with_name("elsewhere"))
    snapshot.memfiles[1].symlink_to("elsewhere")
    return snapshot.source()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_byte, "header is damaged"),
        (cut_the_header, "header is damaged"),
        (lose_the_header, "header is damaged"),
        (lose_a_file, r"memfile\..* is missing"),
        (name_fewer_files, "names 3 builds, 2 were given"),
        (shorten_a_file, "has 4095999 bytes, the guest's memory 4096000"),
        (give_a_directory, "memfile"),
        (give_a_link, "memfile"),
    ],
)
def test_a_damaged_snapshot_is_refused_before_a_vmm_loads_it(run_dir, snapshot, damage, reason):
    source = damage(snapshot)
    with (
        pytest.raises(SnapshotBroken, match=reason),
        pagers.serve(source, place(run_dir)) as pager,
    ):
        pager.wait_ready(Deadline.after(60))
    assert list(run_dir.iterdir()) == []


def test_a_file_that_lost_its_end_while_served_ends_the_vmm(program, run_dir, snapshot):
    with (
        pagers.serve(snapshot.source(), place(run_dir, window_pages=1)) as pager,
        Guest(program, run_dir, snapshot.image, [PAGES]) as guest,
    ):
        assert guest.hear() == "greeted"
        assert guest.ask("read 0 10") == "ok"
        for memfile in snapshot.memfiles:
            os.truncate(memfile, 0)
        guest.say("read 10 900")
        assert was_killed(guest)
        assert guest.hear() == ""
        assert has_ended(pager) == BROKEN
        with pytest.raises(SnapshotBroken, match="can't be read"):
            pager.stats()


XFS_IOC_GOINGDOWN = 0x8004587D  # _IOR('X', 125, __u32); 2: at once, without its log


@pytest.fixture
def disk(tmp_path):
    """A directory of a filesystem that can be made to fail."""
    image, target = tmp_path / "disk", tmp_path / "mounted"
    image.touch()
    os.truncate(image, 400 << 20)
    target.mkdir()
    process.run(["mkfs.xfs", "-q", image], timeout_s=60)
    process.run(["mount", "-o", "loop", image, target], timeout_s=60)
    yield target
    process.run(["umount", target], timeout_s=60)


def fail(disk, files):
    """Every read from now on is an I/O error; what was cached is not read."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    directory = os.open(disk, os.O_RDONLY)
    fcntl.ioctl(directory, XFS_IOC_GOINGDOWN, struct.pack("I", 2))
    os.close(directory)


def test_a_disk_that_fails_while_served_ends_the_vmm(program, run_dir, disk, tmp_path):
    snapshot = make_snapshot(disk, b"\1" * PAGES)
    image = tmp_path / "image"
    image.write_bytes(snapshot.image.read_bytes())
    with (
        pagers.serve(snapshot.source(), place(run_dir)) as pager,
        Guest(program, run_dir, image, [PAGES]) as guest,
    ):
        assert guest.hear() == "greeted"
        pager.wait_serving(Deadline.after(60))
        fail(disk, snapshot.memfiles)
        guest.say("read 512 1")
        assert was_killed(guest)
        assert guest.hear() == ""
        assert has_ended(pager) == BROKEN
        with pytest.raises(SnapshotBroken, match="can't be read"):
            pager.stats()


# VMMs


def region(**changes):
    plain = {
        "base_host_virt_addr": BASE,
        "size": PAGES * PAGE,
        "offset": 0,
        "page_size": PAGE,
        "page_size_kib": PAGE,
    }
    return plain | changes


HALF = PAGES // 2 * PAGE
LOW = region(size=HALF)
HIGH = region(size=HALF, offset=HALF, base_host_virt_addr=BASE + HALF)


@pytest.mark.parametrize(
    ("data", "fds", "reason"),
    [
        ([region()], [], "without the userfaultfd"),
        ([region()], ["uffd", "uffd"], "more than one descriptor"),
        ([region()], ["uffd"] * 20, "many descriptors"),
        ([region()], ["null"], "Inappropriate ioctl"),
        ([region(size=PAGES * PAGE - PAGE)], ["uffd"], "999 pages, the snapshot has 1000"),
        ([region(size=PAGES * PAGE + PAGE)], ["uffd"], "1001 pages"),
        ([LOW, HIGH | {"offset": 0}], ["uffd"], "in no region, or in two"),
        ([LOW, HIGH | {"base_host_virt_addr": BASE + PAGE}], ["uffd"], "overlap"),
        ([region(page_size=2 << 20)], ["uffd"], "pages of 2097152 bytes"),
        ({"not": "a list"}, ["uffd"], "no JSON array"),
        ("x" * 70_000, ["uffd"], "no JSON array"),
        ([[]] * 30_000, ["uffd"], "longer than 65536|1 to 64 regions"),
    ],
)
def test_a_handshake_that_is_not_ours_ends_the_vmm(run_dir, snapshot, data, fds, reason):
    with (
        pagers.serve(snapshot.source(), place(run_dir)) as pager,
        strange_vmm(run_dir, data=json.dumps(data), fds=fds) as vmm,
    ):
        assert vmm.wait(60) == -9
        assert has_ended(pager) == FATAL
        assert "the VMM's handshake is refused" in pager.describe_end()
        with pytest.raises(VmmFailed, match=reason):
            pager.wait_serving(Deadline.after(60))


@pytest.mark.parametrize("data", ["", "[", '[{"base_host'])
def test_a_vmm_that_says_nothing_or_half_is_ended_in_time(run_dir, snapshot, data):
    with (
        pagers.serve(snapshot.source(), place(run_dir, handshake_timeout_s=0.3)) as pager,
        strange_vmm(run_dir, data=data, fds=["uffd"]) as vmm,
    ):
        assert vmm.wait(60) == -9
        with pytest.raises(VmmFailed, match="not complete in time"):
            pager.wait_serving(Deadline.after(60))


def test_a_vmm_that_leaves_before_it_has_said_all_is_ended(run_dir, snapshot):
    with (
        pagers.serve(snapshot.source(), place(run_dir)) as pager,
        strange_vmm(run_dir, data="[", fds=["uffd"], leaves=True) as vmm,
    ):
        assert vmm.wait(60) == -9
        with pytest.raises(VmmFailed, match="ended early"):
            pager.wait_serving(Deadline.after(60))


def test_a_vmm_that_dies_at_once_ends_the_pager(run_dir, snapshot):
    with pagers.serve(snapshot.source(), place(run_dir)) as pager:
        with strange_vmm(run_dir) as vmm:
            vmm.kill()
        assert has_ended(pager) in (GONE, FATAL)
        with pytest.raises(VmmFailed):
            pager.wait_serving(Deadline.after(60))


def test_a_pager_that_no_vmm_connects_to_ends_at_once(run_dir, snapshot):
    with pagers.serve(snapshot.source(), place(run_dir)) as pager:
        pager.wait_ready(Deadline.after(60))
        before = time.monotonic()
    assert time.monotonic() - before < pagers.END_TIMEOUT_S
    assert pager.process.exit_code == GONE


def test_another_uid_is_turned_away_and_the_vmm_is_served(program, run_dir, snapshot):
    with pagers.serve(snapshot.source(), place(run_dir)) as pager:
        with (
            strange_vmm(run_dir, data=json.dumps([region()]), fds=["uffd"], uid=0),
            Guest(program, run_dir, snapshot.image, [PAGES]) as guest,
        ):
            assert guest.hear() == "greeted"
            assert guest.ask("check") == "ok"
        assert "a stranger connected" in pager.describe_end()


def test_after_the_handshake_nobody_can_connect(program, run_dir, snapshot):
    with (
        pagers.serve(snapshot.source(), place(run_dir)) as pager,
        Guest(program, run_dir, snapshot.image, [PAGES]) as guest,
    ):
        assert guest.hear() == "greeted"
        pager.wait_serving(Deadline.after(60))
        with pytest.raises(AssertionError), strange_vmm(run_dir):
            pass
        assert guest.ask("check") == "ok"


def test_the_pager_is_confined(program, run_dir, snapshot):
    with (
        pagers.serve(snapshot.source(), place(run_dir)) as pager,
        Guest(program, run_dir, snapshot.image, [PAGES]) as guest,
    ):
        assert guest.hear() == "greeted"
        for pid in (pager.pid, pager.stats().worker):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines)
            assert status["Uid"].split() == [str(place(run_dir).uid)] * 4
            assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd")} == {"0" * 16}
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            assert list(Path(f"/proc/{pid}/root/").iterdir()) == []
            # What has another uid can't look into it: it is root's in /proc.
            assert Path(f"/proc/{pid}/mem").stat().st_uid == 0


def test_the_pager_is_in_its_sandboxs_cgroup(run_dir, snapshot):
    hierarchy = Hierarchy.find()
    assert hierarchy is not None, "the tests of the root tier need a cgroup2 mount"
    group = hierarchy.make(f"wrenn-test{os.getpid()}", "one")
    try:
        where = place(run_dir, cgroup_procs=group.procs)
        with pagers.serve(snapshot.source(), where) as pager:
            pager.wait_ready(Deadline.after(60))
            assert group.pids() == [pager.pid]
    finally:
        group.remove(Deadline.after(30))
        group.path.parent.rmdir()


def test_a_cgroup_that_is_gone_is_named(run_dir, snapshot, tmp_path):
    where = place(run_dir, cgroup_procs=tmp_path / "none/cgroup.procs")
    with (
        pytest.raises(VmmFailed, match=r"exit code 126 .*join cgroup"),
        pagers.serve(snapshot.source(), where) as pager,
    ):
        pager.wait_ready(Deadline.after(60))


def test_content_differs_from_zeros():
    assert page_content(1, 0) != bytes(PAGE)
