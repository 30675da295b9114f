"""The contract of disk drivers, run on every driver that there is, and on the fake."""

import os
from pathlib import Path

import pytest

from disks import BLOCK, MIB, make_base, superblock, write
from small_filesystem import on_loop
from wrennd.core.errors import HostUnsuitable, ImageBroken, InvalidInput, NoCapacity, SnapshotBroken
from wrennd.storage import drivers, overlay
from wrennd.storage.layout import Layout
from wrennd.storage.usage import disk_usage

SLACK = 64 << 10


def names(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_a_disk_has_the_bytes_of_its_base_and_is_its_owners_alone(places, base):
    disk = places.create(base)
    assert places.read(disk) == base.read_bytes()
    assert disk.stat().st_mode & 0o777 == 0o600
    assert disk.stat().st_uid == os.getuid()


def test_holes_stay_holes(places, base):
    disk = places.create(base)
    assert disk_usage(disk) <= disk_usage(base) + SLACK


def test_writes_reach_neither_the_base_nor_another_disk(places, base):
    before = base.read_bytes()
    one, two = places.create(base), places.create(base)
    places.write(one, MIB // 2, b"x" * 2 * MIB)
    assert places.read(two) == before
    assert base.read_bytes() == before
    assert places.read(one, MIB // 2, 2 * MIB) == b"x" * 2 * MIB
    assert places.read(one)[: MIB // 2] == before[: MIB // 2]


def test_remove_may_be_done_twice_and_leaves_nothing(places, base):
    disk = places.create(base)
    places.driver.remove(disk)
    places.driver.remove(disk)
    assert list(disk.parent.iterdir()) == []


def test_an_existing_disk_is_not_overwritten(places, base):
    disk = places.new()
    disk.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        places.driver.create(base, disk, uid=os.getuid())
    assert {disk: b"precious"} == {path: path.read_bytes() for path in disk.parent.iterdir()}


def test_a_missing_base_is_named_and_leaves_nothing(places, directory):
    disk = places.new()
    with pytest.raises(ImageBroken, match=r"nothing\.ext4"):
        places.driver.create(directory / "nothing.ext4", disk, uid=os.getuid())
    assert list(disk.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no ext4"),
        (b"#!/bin/sh\n" * 1000, "no ext4"),
        (superblock(1024), "cut"),
        (superblock(1) + b"x", "blocks"),
    ],
)
def test_what_is_no_whole_ext4_is_no_base(places, directory, content, why):
    wrong = directory / "wrong.img"
    wrong.write_bytes(content)
    disk = places.new()
    with pytest.raises(ImageBroken, match=why):
        places.driver.create(wrong, disk, uid=os.getuid())
    assert list(disk.parent.iterdir()) == []


def test_the_block_removes_the_disk_also_when_it_raises(places, base):
    disk = places.new()

    def use_and_fail():
        with overlay.overlay(places.driver, base, disk, uid=os.getuid()):
            assert disk.exists()
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        use_and_fail()
    assert list(disk.parent.iterdir()) == []


def test_a_kept_disk_is_what_the_disk_was_at_that_moment(places, base):
    disk = places.create(base)
    places.write(disk, MIB, b"then")
    kept = places.driver.snapshot(disk, places.new())
    then = places.read(disk)
    places.write(disk, MIB, b"now!")
    assert kept.stat().st_mode & 0o777 == 0o444
    assert kept.stat().st_uid == os.getuid()
    assert disk_usage(kept) <= disk_usage(base) + SLACK
    assert places.driver.size(kept) == len(then)
    places.remove(disk)
    assert places.read(places.clone(kept)) == then


def test_a_disk_goes_on_after_it_was_kept(places, base):
    disk = places.create(base)
    for round in range(3):
        places.write(disk, round * BLOCK, b"%d" % round * BLOCK)
        places.driver.snapshot(disk, places.new())
    assert places.read(disk, 0, 3 * BLOCK) == b"".join(b"%d" % n * BLOCK for n in range(3))


def test_a_flat_disk_is_one_file_of_the_same_bytes(places, base):
    disk = places.create(base)
    places.write(disk, 2 * MIB, b"written" * 1000)
    flat = places.driver.flatten(disk, places.new())
    assert flat.read_bytes() == places.read(disk)
    assert list(flat.parent.iterdir()) == [flat]
    assert flat.stat().st_mode & 0o777 == 0o444
    assert disk_usage(flat) <= disk_usage(base) + SLACK
    again = places.clone(flat)
    assert places.read(again) == flat.read_bytes()


def test_a_kept_disk_can_be_flattened_too(places, base):
    disk = places.create(base, disk_mib=6)
    places.write(disk, 5 * MIB, b"behind the base")
    places.write(disk, 2 * MIB, b"in it")
    kept = places.driver.snapshot(disk, places.new())
    then = places.read(disk)
    places.remove(disk)
    assert places.driver.flatten(kept, places.new()).read_bytes() == then


def test_disks_of_one_kept_disk_go_their_own_ways(places, base):
    disk = places.create(base)
    kept = places.driver.snapshot(disk, places.new())
    one, two = places.clone(kept), places.clone(kept)
    for path in (one, two):
        assert path.stat().st_mode & 0o777 == 0o600
        assert disk_usage(path) <= disk_usage(base) + SLACK
    places.write(one, 2 * MIB, b"one")
    assert places.read(two) == places.read(places.clone(kept)) == base.read_bytes()
    assert places.read(one, 2 * MIB, 3) == b"one"
    assert len(places.read(one)) == base.stat().st_size


def test_a_longer_disk_reads_as_zeros_behind_its_base_and_keeps_what_is_written(places, base):
    disk = places.create(base, disk_mib=8)
    assert places.driver.size(disk) == len(places.read(disk)) == 8 * MIB
    assert places.read(disk) == base.read_bytes() + bytes(4 * MIB)
    places.write(disk, 4 * MIB - BLOCK, b"over the edge" * BLOCK)
    kept = places.driver.snapshot(disk, places.new())
    then = places.read(disk)
    longer = places.clone(kept, disk_mib=16)
    assert places.read(longer) == then + bytes(8 * MIB)
    places.write(longer, 15 * MIB, b"more")
    assert places.read(longer, 15 * MIB, 4) == b"more"
    assert places.read(disk) == then


def test_a_disk_is_never_shortened(places, base):
    with pytest.raises(InvalidInput, match="3 MiB"):
        places.create(base, disk_mib=3)
    kept = places.driver.snapshot(places.create(base, disk_mib=8), places.new())
    with pytest.raises(InvalidInput, match="7 MiB"):
        places.clone(kept, disk_mib=7)


def test_a_disk_that_was_released_is_taken_into_use_again(places, base):
    disk = places.create(base)
    places.write(disk, MIB, b"before")
    places.driver.release(disk)
    places.driver.release(disk)
    places.reopen(disk)
    assert places.read(disk, MIB, 6) == b"before"
    places.reopen(disk)  # it may be in use by nobody, and yet be there
    places.write(disk, MIB, b"behind")
    assert places.read(disk, MIB, 6) == b"behind"


def test_a_disk_may_be_moved_within_its_directory_while_nobody_uses_it(places, base):
    disk = places.create(base)
    places.write(disk, MIB, b"old")
    places.driver.release(disk)
    before = disk.rename(disk.with_name("rootfs.ext4.before"))
    places.given[disk] = places.driver.create(base, disk, uid=os.getuid())
    assert places.read(disk, MIB, 3) != b"old"
    places.driver.remove(disk)
    before.rename(disk)
    places.reopen(disk)
    assert places.read(disk, MIB, 3) == b"old"


def test_what_is_well_stays_so_when_it_is_mended(places, base):
    disk = places.create(base)
    places.driver.mend(disk)
    places.write(disk, 0, b"x")
    places.driver.release(disk)
    places.driver.mend(disk)
    places.driver.mend(places.new())


def test_a_disks_status(places, base):
    disk = places.create(base, disk_mib=8)
    found = places.driver.status(disk)
    assert found.size_bytes == 8 * MIB
    assert found.lost == ""
    assert found.free_bytes > 0
    assert 0 <= found.used_bytes <= disk_usage(base) + SLACK


def test_missing_disks_are_named_and_leave_nothing(places):
    one, two = places.new(), places.new()
    with pytest.raises(SnapshotBroken, match="kept"):
        places.driver.clone(one.with_name("kept"), one, uid=os.getuid())
    with pytest.raises(FileNotFoundError, match=one.parent.name):
        places.driver.snapshot(one, two)
    with pytest.raises(SnapshotBroken, match=one.parent.name):
        places.driver.reopen(one, uid=os.getuid())
    assert [*one.parent.iterdir(), *two.parent.iterdir()] == []


def test_what_is_there_is_never_overwritten(places, base):
    disk = places.create(base)
    kept = places.driver.snapshot(disk, places.new())
    for make in (
        lambda: places.driver.snapshot(disk, kept),
        lambda: places.driver.flatten(disk, kept),
        lambda: places.driver.clone(kept, disk, uid=os.getuid()),
    ):
        with pytest.raises(FileExistsError):
            make()
    assert places.read(disk) == places.read(places.clone(kept)) == base.read_bytes()


def test_the_block_of_a_restored_disk_removes_the_disk_and_not_what_was_kept(places, base):
    kept = places.driver.snapshot(places.create(base), places.new())
    disk = places.new()

    def use_and_fail():
        with overlay.restored(places.driver, kept, disk, uid=os.getuid()) as again:
            write(again, 0, b"x")
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        use_and_fail()
    assert list(disk.parent.iterdir()) == []
    assert places.read(places.clone(kept)) == base.read_bytes()


def test_what_another_driver_kept_can_be_used(places, base, directory):
    """Plain files are what the other drivers keep; those of dm are in tests/unit/storage."""
    copied = overlay.copy_driver()
    disk = places.new()
    copied.create(base, disk, uid=os.getuid())
    write(disk, MIB, b"by another")
    kept = copied.snapshot(disk, places.new())
    again = places.clone(kept)
    assert places.read(again) == disk.read_bytes()
    places.write(again, MIB, b"by this one")
    assert kept.read_bytes() == disk.read_bytes()


def test_a_base_lives_as_long_as_its_disks(places, base):
    then = base.read_bytes()
    disk = places.create(base)
    kept = places.driver.snapshot(disk, places.new())
    base.unlink()
    places.driver.release(disk)
    places.reopen(disk)
    assert places.read(disk) == then
    places.remove(disk)
    assert places.read(places.clone(kept)) == then


@pytest.mark.root
def test_a_file_belongs_to_its_uid_and_a_kept_one_to_us(places, base):
    disk, again = places.new(), places.new()
    given = places.driver.create(base, disk, uid=1_234_567)
    kept = places.driver.snapshot(disk, places.new())
    also_given = places.driver.clone(kept, again, uid=1_234_568)
    places.given |= {disk: given, again: also_given}
    assert (kept.stat().st_uid, kept.stat().st_gid) == (0, 0)
    for made, uid in ((given, 1_234_567), (also_given, 1_234_568)):
        if isinstance(made, Path):  # of a device the VMM gets a node of its own
            assert (made.stat().st_uid, made.stat().st_gid) == (uid, uid)


@pytest.mark.root
@pytest.mark.parametrize(
    "make",
    [
        lambda driver, disk, new: driver.snapshot(disk, new),
        lambda driver, disk, new: driver.flatten(disk, new),
        lambda driver, disk, new: driver.clone(disk, new, uid=os.getuid()),
    ],
    ids=["snapshot", "flatten", "clone"],
)
def test_a_disk_that_does_not_fit_any_more_is_no_capacity_and_leaves_nothing(tmp_path, make):
    driver = overlay.copy_driver()
    with on_loop(tmp_path, "ext4", 24) as mount:
        base = make_base(tmp_path / "base", {1: os.urandom(12 * MIB)}, 3073)
        disk = driver.create(base, mount / "disk", uid=os.getuid())
        before = sorted(mount.iterdir())
        with pytest.raises(NoCapacity, match="full"):
            make(driver, disk, mount / "new")
        assert sorted(mount.iterdir()) == before
        assert disk.read_bytes() == base.read_bytes()


@pytest.mark.root
def test_a_full_filesystem_is_no_capacity_and_leaves_nothing(tmp_path):
    with on_loop(tmp_path, "ext4", 8) as mount:
        base = make_base(tmp_path / "base", {1: os.urandom(16 * MIB)}, 4097)
        with pytest.raises(NoCapacity, match="full"):
            overlay.copy_driver().create(base, mount / "disk", uid=os.getuid())
        assert not (mount / "disk").exists()


@pytest.mark.root
def test_auto_is_the_best_that_works(tmp_path):
    has_dm = not drivers.why_not(tmp_path, "dm")
    for kind, best in (("xfs", "reflink"), ("ext4", "copy")):
        with on_loop(tmp_path, kind, 400 if kind == "xfs" else 8) as mount:
            layout = Layout.prepare(mount / "data")
            before = names(layout.data_dir)
            assert drivers.choose(layout, "auto").name == ("dm" if has_dm else best)
            assert drivers.choose(layout, "copy").name == "copy"
            if kind == "ext4":
                with pytest.raises(HostUnsuitable, match="can't clone"):
                    drivers.choose(layout, "reflink")
            if not has_dm:
                with pytest.raises(HostUnsuitable, match="device-mapper"):
                    drivers.choose(layout, "dm")
            assert names(layout.data_dir) == before
