"""The contract of overlay drivers, run on every driver that there is."""

import os
from contextlib import contextmanager

import pytest

from wrennd.core.errors import HostUnsuitable, ImageBroken, NoCapacity, SnapshotBroken
from wrennd.linux import process
from wrennd.storage import overlay

MIB = 1 << 20


@contextmanager
def filesystem(path, kind, size_mib):
    """A small filesystem of its own, on a loop device that goes with its mount."""
    image = path / f"{kind}.img"
    with image.open("wb") as file:
        file.truncate(size_mib * MIB)
    if kind == "xfs":
        process.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], timeout_s=60)
    else:
        process.run(["mkfs.ext4", "-q", image], timeout_s=60)
    mount = path / "mnt"
    mount.mkdir()
    process.run(["mount", "-o", "loop", image, mount], timeout_s=60)
    try:
        yield mount
    finally:
        process.run(["umount", mount], timeout_s=60)


@pytest.fixture(
    params=["copy", pytest.param("reflink", marks=pytest.mark.root)],
)
def driver_and_directory(request, tmp_path):
    if request.param == "copy":
        yield overlay.copy_driver(), tmp_path
        return
    with filesystem(tmp_path, "xfs", 400) as mount:
        yield overlay.reflink_driver(), mount


@pytest.fixture
def driver(driver_and_directory):
    return driver_and_directory[0]


@pytest.fixture
def directory(driver_and_directory):
    return driver_and_directory[1]


@pytest.fixture
def base(directory):
    """4 MiB: data, a hole, data; read-only."""
    path = directory / "base.ext4"
    with path.open("wb") as file:
        file.write(b"a" * MIB)
        file.seek(3 * MIB)
        file.write(b"b" * MIB)
    path.chmod(0o444)
    return path


def write(path, at, data):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_disk_has_the_bytes_of_its_base_and_is_its_owners_alone(driver, directory, base):
    disk = driver.create(base, directory / "disk", uid=os.getuid())
    assert disk.read_bytes() == base.read_bytes()
    assert disk.stat().st_mode & 0o777 == 0o600
    assert disk.stat().st_uid == os.getuid()


def test_holes_stay_holes(driver, directory, base):
    disk = driver.create(base, directory / "disk", uid=os.getuid())
    assert disk.stat().st_blocks * 512 <= base.stat().st_blocks * 512 + 64 * 1024


def test_writes_reach_neither_the_base_nor_another_disk(driver, directory, base):
    before = base.read_bytes()
    one = driver.create(base, directory / "one", uid=os.getuid())
    two = driver.create(base, directory / "two", uid=os.getuid())
    with one.open("r+b") as file:
        file.seek(MIB // 2)
        file.write(b"x" * 2 * MIB)
    assert two.read_bytes() == before
    assert base.read_bytes() == before
    assert one.read_bytes()[MIB // 2 : MIB // 2 + 2 * MIB] == b"x" * 2 * MIB


def test_remove_may_be_done_twice(driver, directory, base):
    disk = driver.create(base, directory / "disk", uid=os.getuid())
    driver.remove(directory / "disk")
    driver.remove(directory / "disk")
    assert not disk.exists()


def test_an_existing_disk_is_not_overwritten(driver, directory, base):
    (directory / "disk").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        driver.create(base, directory / "disk", uid=os.getuid())
    assert (directory / "disk").read_bytes() == b"precious"


def test_a_missing_base_is_named_and_leaves_nothing(driver, directory):
    with pytest.raises(ImageBroken, match=r"nothing\.ext4"):
        driver.create(directory / "nothing.ext4", directory / "disk", uid=os.getuid())
    assert not (directory / "disk").exists()


def test_a_kept_disk_is_what_the_disk_was_at_that_moment(driver, directory, base):
    disk = driver.create(base, directory / "disk", uid=os.getuid())
    write(disk, MIB, b"then")
    kept = driver.snapshot(disk, directory / "kept")
    then = disk.read_bytes()
    write(disk, MIB, b"now!")
    assert kept.read_bytes() == then != disk.read_bytes()
    assert kept.stat().st_mode & 0o777 == 0o444
    assert kept.stat().st_uid == os.getuid()
    assert kept.stat().st_blocks * 512 <= disk.stat().st_blocks * 512 + 64 * 1024
    driver.remove(disk)
    assert kept.read_bytes() == then


def test_disks_of_one_kept_disk_go_their_own_ways(driver, directory, base):
    disk = driver.create(base, directory / "disk", uid=os.getuid())
    kept = driver.snapshot(disk, directory / "kept")
    one = driver.clone(kept, directory / "one", uid=os.getuid())
    two = driver.clone(kept, directory / "two", uid=os.getuid())
    for path in (one, two):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_blocks * 512 <= kept.stat().st_blocks * 512 + 64 * 1024
    write(one, 2 * MIB, b"one")
    assert two.read_bytes() == kept.read_bytes() == base.read_bytes()
    assert one.read_bytes()[2 * MIB : 2 * MIB + 3] == b"one"
    assert one.stat().st_size == base.stat().st_size


def test_missing_disks_are_named_and_leave_nothing(driver, directory):
    with pytest.raises(SnapshotBroken, match="kept"):
        driver.clone(directory / "kept", directory / "disk", uid=os.getuid())
    with pytest.raises(FileNotFoundError, match="nothing"):
        driver.snapshot(directory / "nothing", directory / "kept")
    assert not (directory / "disk").exists()
    assert not (directory / "kept").exists()


def test_what_is_there_is_never_overwritten(driver, directory, base):
    disk = driver.create(base, directory / "disk", uid=os.getuid())
    kept = driver.snapshot(disk, directory / "kept")
    for make in (
        lambda: driver.snapshot(disk, kept),
        lambda: driver.clone(kept, disk, uid=os.getuid()),
    ):
        with pytest.raises(FileExistsError):
            make()
    assert kept.read_bytes() == disk.read_bytes() == base.read_bytes()


@pytest.mark.root
def test_a_disk_belongs_to_its_uid_and_a_kept_one_to_us(driver, directory, base):
    disk = driver.create(base, directory / "disk", uid=1_234_567)
    kept = driver.snapshot(disk, directory / "kept")
    again = driver.clone(kept, directory / "again", uid=1_234_568)
    found = [path.stat() for path in (disk, kept, again)]
    assert [one.st_uid for one in found] == [1_234_567, 0, 1_234_568]
    assert [one.st_gid for one in found] == [1_234_567, 0, 1_234_568]


@pytest.mark.root
@pytest.mark.parametrize(
    "make",
    [
        lambda driver, disk, new: driver.snapshot(disk, new),
        lambda driver, disk, new: driver.clone(disk, new, uid=os.getuid()),
    ],
    ids=["snapshot", "clone"],
)
def test_a_disk_that_does_not_fit_any_more_is_no_capacity_and_leaves_nothing(tmp_path, make):
    driver = overlay.copy_driver()
    with filesystem(tmp_path, "ext4", 24) as mount:
        base = tmp_path / "base"
        base.write_bytes(os.urandom(12 * MIB))
        disk = driver.create(base, mount / "disk", uid=os.getuid())
        before = sorted(mount.iterdir())
        with pytest.raises(NoCapacity, match="full"):
            make(driver, disk, mount / "new")
        assert sorted(mount.iterdir()) == before
        assert disk.read_bytes() == base.read_bytes()


@pytest.mark.root
def test_a_full_filesystem_is_no_capacity_and_leaves_nothing(tmp_path):
    with filesystem(tmp_path, "ext4", 8) as mount:
        base = tmp_path / "base"
        base.write_bytes(os.urandom(16 * MIB))
        with pytest.raises(NoCapacity, match="full"):
            overlay.copy_driver().create(base, mount / "disk", uid=os.getuid())
        assert not (mount / "disk").exists()


@pytest.mark.root
def test_auto_clones_where_it_can_and_copies_elsewhere(tmp_path):
    with filesystem(tmp_path, "xfs", 400) as mount:
        assert overlay.choose(mount, "auto").name == "reflink"
        assert overlay.choose(mount, "copy").name == "copy"
        assert list(mount.iterdir()) == []
    ext4 = tmp_path / "ext4"
    ext4.mkdir()
    with filesystem(ext4, "ext4", 8) as mount:
        assert overlay.choose(mount, "auto").name == "copy"
        with pytest.raises(HostUnsuitable, match="can't clone"):
            overlay.choose(mount, "reflink")
