"""Tables and names of dm disks, and what another driver makes of a kept one."""

import os

import pytest

from disks import BLOCK, make_base
from wrennd.core.errors import SnapshotBroken
from wrennd.linux.devices import BlockDevice
from wrennd.storage import cow, dm, drivers, overlay
from wrennd.storage.cow import CowHeader
from wrennd.storage.layout import Layout

BASE, DISK = BlockDevice(7, 0), BlockDevice(7, 1)
ID = "ab" * 16
SANDBOX = "abcdefghij0123456789"


def test_the_table_of_a_disk():
    header = CowHeader(base_id=ID, base_bytes=16 << 20)
    (only,) = dm.table(header, BASE, DISK, discards=True)
    assert str(only) == "0 32768 snapshot 7:0 7:1 P 8 1 discard_zeroes_cow"
    (only,) = dm.table(header, BASE, DISK, discards=False)
    assert str(only) == "0 32768 snapshot 7:0 7:1 P 8"


def test_what_is_behind_the_base_is_written_in_place():
    header = CowHeader(base_id=ID, base_bytes=16 << 20, tail_bytes=8 << 20)
    first, second = dm.table(header, BASE, DISK, discards=True)
    assert first.length == second.start == 32768
    assert str(second) == f"32768 16384 linear 7:1 {header.area_bytes // 512}"
    assert header.tail_at == cow.HEADER_BYTES + header.area_bytes


def test_names_of_devices():
    assert dm.device_name("abc123", SANDBOX) == f"wrenn-abc123-{SANDBOX}"


@pytest.fixture
def kept(tmp_path):
    """What `dm` keeps of a disk whose block 2 was written."""
    base = make_base(tmp_path / "base", {1: b"1" * BLOCK, 2: b"2" * BLOCK}, 4)
    with base.open("rb") as file:
        header = CowHeader(base_id=cow.base_id(file.fileno()), base_bytes=4 * BLOCK)
    base.rename(tmp_path / header.base_name)
    disk = tmp_path / "rootfs.ext4"
    with disk.open("w+b") as file:
        cow.write_new(file.fileno(), header)
    return disk


def test_a_kept_disk_is_a_plain_file_elsewhere(kept, tmp_path):
    driver = overlay.copy_driver()
    given = driver.clone(kept, tmp_path / "again", uid=os.getuid())
    assert given.read_bytes()[BLOCK:] == b"1" * BLOCK + b"2" * BLOCK + bytes(BLOCK)
    assert driver.size(kept) == 4 * BLOCK
    flat = driver.flatten(kept, tmp_path / "flat")
    assert flat.read_bytes() == given.read_bytes()


def test_a_disk_without_its_base_is_broken(kept, tmp_path):
    next(tmp_path.glob("base.*")).unlink()
    with pytest.raises(SnapshotBroken, match="missing"):
        overlay.copy_driver().clone(kept, tmp_path / "again", uid=os.getuid())
    assert not (tmp_path / "again").exists()


def swap(base):
    make_base(base.with_name("other"), {1: b"9" * BLOCK}, 4, mark=b"another").replace(base)


def cut(base):
    base.chmod(0o600)
    os.truncate(base, BLOCK)


@pytest.mark.parametrize("change", [swap, cut])
def test_a_disk_of_another_base_is_broken(kept, tmp_path, change):
    change(next(tmp_path.glob("base.*")))
    with pytest.raises(SnapshotBroken, match="base"):
        overlay.copy_driver().clone(kept, tmp_path / "again", uid=os.getuid())
    assert not (tmp_path / "again").exists()


def test_a_disks_file_tells_its_driver(kept, tmp_path):
    layout = Layout(data_dir=tmp_path, installation="abc123")
    plain = tmp_path / "plain"
    plain.write_bytes(b"x" * BLOCK)
    assert drivers.of(layout, kept, "copy").name == "dm"
    assert drivers.of(layout, plain, "reflink").name == "reflink"
    assert drivers.of(layout, plain, "dm").name == "copy"
    assert drivers.of(layout, tmp_path / "nothing", "reflink").name == "reflink"


def test_a_plain_driver_does_not_take_a_dm_disk_into_use(kept):
    with pytest.raises(SnapshotBroken, match="driver dm"):
        overlay.copy_driver().reopen(kept, uid=os.getuid())
