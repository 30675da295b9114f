"""A filesystem of our own for disks: made, moved into, found again, given up half-way."""

import os
import signal

import pytest

from disks import make_base
from small_filesystem import on_loop
from wrennd.core.errors import AlreadyExists, HostUnsuitable, NoCapacity, WrongState
from wrennd.core.ids import new_sandbox_id
from wrennd.host import disk_watch
from wrennd.host.storage_setup import make_volume
from wrennd.linux import mounts
from wrennd.storage import drivers, volume
from wrennd.storage.images import ImageStore
from wrennd.storage.layout import Layout

GIB = 1 << 30


@pytest.fixture
def layout(tmp_path, leak_check):
    """On a filesystem that can't clone, whatever that of the tests is."""
    with on_loop(tmp_path, "ext4", 3072) as mount:
        made = Layout.prepare(mount / "data")
        leak_check.watch(made.installation, tmp_path)
        yield made
        mounts.unmount(made.data_dir / volume.MOUNT)


def publish(layout, name="tiny"):
    images = ImageStore(layout)
    staging = images.image_staging(name)
    staging.mkdir(parents=True)
    make_base(staging / "rootfs.ext4", {1: b"x" * 4096}, 1024)
    return images.publish_image(name, staging, {"recipe": "none"})


def said(_line):
    """A report that nobody reads."""


def test_what_is_there_is_moved_and_disks_are_cloned_from_then_on(layout):
    before = publish(layout)
    make_volume(layout, GIB, said)
    now = Layout.prepare(layout.data_dir)
    assert now.has_volume
    assert now.installation == layout.installation
    image = ImageStore(now).find("tiny")
    assert image.rootfs.is_relative_to(layout.data_dir / "volume")
    assert (image.digest, image.created) == (before.digest, before.created)
    assert image.used_bytes < 1 << 20
    ImageStore(now).verify(image)
    assert drivers.choose_name(now.sandboxes, "reflink") == "reflink"
    assert not (layout.data_dir / "images").exists()
    assert not (layout.data_dir / "sandboxes").exists()


def test_it_takes_what_is_in_it(layout):
    make_volume(layout, GIB, said)
    file = layout.data_dir / "volume.xfs"
    assert file.stat().st_size == GIB
    assert file.stat().st_blocks * 512 < 160 << 20  # its log has 64 MiB
    assert file.stat().st_mode & 0o777 == 0o600


def test_it_is_mounted_by_whoever_comes_after_a_restart(layout):
    make_volume(layout, GIB, said)
    publish(Layout.prepare(layout.data_dir))
    mounts.unmount(layout.data_dir / "volume")
    found = Layout.find(layout.data_dir)
    assert ImageStore(found).find("tiny").name == "tiny"
    assert Layout.prepare(layout.data_dir) == found


def test_many_come_at_once_after_a_restart(layout):
    make_volume(layout, GIB, said)
    mounts.unmount(layout.data_dir / "volume")
    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if Layout.prepare(layout.data_dir).has_volume else 2
            finally:
                os._exit(code)
        children.append(child)
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    mounts.unmount(layout.data_dir / "volume")
    assert not (layout.data_dir / "volume" / "sandboxes").exists()


def test_there_is_one_only(layout):
    make_volume(layout, GIB, said)
    with pytest.raises(AlreadyExists):
        make_volume(Layout.prepare(layout.data_dir), GIB, said)
    with pytest.raises(AlreadyExists), volume.made(layout.data_dir, GIB):
        raise AssertionError("there is one")
    assert Layout.prepare(layout.data_dir).has_volume


def test_not_while_there_are_sandboxes(layout):
    (layout.sandboxes / new_sandbox_id()).mkdir()
    with pytest.raises(WrongState, match="1 sandboxes"):
        make_volume(layout, GIB, said)
    assert not (layout.data_dir / "volume.xfs").exists()


@pytest.mark.parametrize("size", [GIB - 1, 1 << 60])
def test_a_size_that_can_not_be(layout, size):
    with pytest.raises(NoCapacity, match="free"):
        make_volume(layout, size, said)
    assert not (layout.data_dir / "volume.xfs.tmp").exists()


def test_nothing_is_left_when_it_can_not_be_filled(layout):
    def fill():
        with volume.made(layout.data_dir, GIB) as mounted:
            (mounted / "half").write_bytes(b"x" * 4096)
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        fill()
    assert not [path for path in layout.data_dir.iterdir() if path.name.startswith("volume.x")]
    assert not (layout.data_dir / "volume").exists()
    assert not Layout.prepare(layout.data_dir).has_volume


def test_a_setup_that_was_killed_is_begun_anew(layout):
    publish(layout)
    child = os.fork()
    if child == 0:
        with volume.made(layout.data_dir, GIB) as mounted:
            (mounted / "half").write_bytes(b"x" * 4096)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    untouched = Layout.prepare(layout.data_dir)
    assert not untouched.has_volume
    assert ImageStore(untouched).find("tiny").name == "tiny"
    make_volume(untouched, GIB, said)
    now = Layout.prepare(layout.data_dir)
    assert ImageStore(now).find("tiny").name == "tiny"
    assert not (now.store / "half").exists()


def test_a_file_that_is_no_filesystem_is_said_and_hides_nothing(layout):
    (layout.data_dir / "volume.xfs").write_bytes(b"x" * 4096)
    with pytest.raises(HostUnsuitable, match="can't be mounted"):
        Layout.prepare(layout.data_dir)
    assert list((layout.data_dir / "volume").iterdir()) == []


def test_what_lies_in_it_is_stopped_before_the_filesystem_below_is_full(layout):
    make_volume(layout, GIB, said)
    now = Layout.prepare(layout.data_dir)
    disk = now.sandbox(new_sandbox_id()).disk
    disk_watch.check_volume(now)
    with pytest.raises(NoCapacity, match="below"):
        disk_watch.check_volume(now, volume.free_below(now.data_dir))
    filler = now.data_dir / "filler"
    with filler.open("wb") as file:
        room = volume.free_below(now.data_dir) - disk_watch.RESERVE_BYTES // 2
        os.posix_fallocate(file.fileno(), 0, room)
    assert os.statvfs(now.sandboxes).f_bavail > 0, "the volume itself has room"
    with pytest.raises(NoCapacity, match="free"):
        disk_watch.check_volume(now)
    assert "almost full" in disk_watch.trouble_of(now, disk)
    filler.unlink()
    disk_watch.check_volume(now)


def test_without_one_only_dm_disks_are_looked_at(layout):
    disk_watch.check_volume(layout, 1 << 60)
    assert disk_watch.trouble_of(layout, layout.sandbox(new_sandbox_id()).disk) == ""


def test_it_goes_with_all_that_is_in_it(layout):
    publish(layout)
    make_volume(layout, GIB, said)
    for _ in range(2):  # the second time there is none
        volume.remove(layout.data_dir)
        assert not (layout.data_dir / volume.FILE).exists()
        assert not (layout.data_dir / volume.MOUNT).exists()
