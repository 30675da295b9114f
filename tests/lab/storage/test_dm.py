"""What only dm disks have: devices, loop devices, and what is left of them when somebody dies."""

import fcntl
import hashlib
import os
import random
import shutil
import signal
import struct
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from disks import BLOCK, MIB, Places, make_base, sync, write
from small_filesystem import on_loop
from system_calls import run_and_kill
from vmm_server import wait_until
from wrennd.core.errors import DeadlineExceeded, DiskFailed, NoCapacity, SnapshotBroken
from wrennd.host.disk_watch import RESERVE_BYTES, trouble
from wrennd.linux import devices, dm, loop, process
from wrennd.storage import cow, drivers
from wrennd.storage import dm as disks
from wrennd.storage.layout import Layout
from wrennd.storage.usage import disk_usage

pytestmark = pytest.mark.lab
BLKDISCARD = 0x1277  # _IO(0x12, 119), linux/fs.h
BLOCKS = 1024
# What leaves something behind, or takes it away; each is once the last one that somebody makes.
STEPS = ("ioctl", "link", "open", "ftruncate", "pwrite", "copy_file_range", "fsync", "unlink")


@pytest.fixture
def layout(tmp_path, leak_check):
    made = Layout.prepare(tmp_path / "data")
    leak_check.watch(made.installation, tmp_path)
    return made


@pytest.fixture
def places(layout):
    found = Places(layout.sandboxes, drivers.named(layout, "dm"))
    yield found
    found.remove_all()


@pytest.fixture
def base(tmp_path):
    contents = {n: bytes([n % 251]) * BLOCK for n in range(1, BLOCKS, 3)}
    path = make_base(tmp_path / "base.img", contents, BLOCKS)
    before = digest(path)
    yield path
    assert digest(path) == before


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def control_of(layout, disk):
    with dm.opened() as control:
        yield control, disks.device_name(layout.installation, disk.parent.name)


def loops_of(layout):
    """The loop devices that carry the installation's name."""
    found = []
    for number in loop.numbers():
        with ExitStack() as held:
            try:
                fd = loop.open_loop(number)
                held.callback(os.close, fd)
                status = loop.status(fd)
            except OSError:
                continue  # it went away meanwhile
            if status.name == f"wrenn-{layout.installation}":
                found.append(status)
    return found


def check_loops(layout, count):
    """udev looks into each block device that comes, and for that long keeps those that went."""
    wait_until(lambda: len(loops_of(layout)) <= count, f"no more than {count} loop devices")
    assert len(loops_of(layout)) == count


def users(places):
    return places.driver._loops.users()


@pytest.mark.smoke
def test_disks_of_one_base_share_its_loop_device(places, base, layout):
    made = [places.create(base) for _ in range(4)]
    (shared,) = users(places)
    assert len(shared.users) == 4
    check_loops(layout, 5)
    assert all(status.is_autoclear for status in loops_of(layout))
    for left, disk in enumerate(reversed(made)):
        assert len(users(places)[0].users) == 4 - left
        places.remove(disk)
    check_loops(layout, 0)


def test_another_process_finds_the_counts_in_the_kernel(places, base, layout):
    places.create(base)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            other = Places(layout.sandboxes, drivers.named(layout, "dm"), count=50)
            other.create(base)
            code = 0 if len(users(other)[0].users) == 2 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    (shared,) = users(places)
    assert len(shared.users) == 2
    places.driver.remove(layout.sandboxes / f"{51:020d}" / "rootfs.ext4")
    assert len(users(places)[0].users) == 1


def test_many_at_once_share_it_too(places, base, layout):
    homes = [places.new() for _ in range(8)]
    children = []
    for disk in homes:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                drivers.named(layout, "dm").create(base, disk, uid=0)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    (shared,) = users(places)
    assert len(shared.users) == 8
    threads = [threading.Thread(target=places.driver.remove, args=(disk,)) for disk in homes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_loops(layout, 0)


def test_a_device_has_the_ids_in_its_name_and_no_node_of_udevs(places, base, layout):
    disk = places.create(base, disk_mib=8)
    with control_of(layout, disk) as (control, name):
        assert name == f"wrenn-{layout.installation}-{disk.parent.name}"
        first, second = control.table(name)
        assert first.params.endswith(" P 8 1 discard_zeroes_cow")
        assert (first.length, second.start, second.kind) == (8192, 8192, "linear")
    if Path("/run/udev/control").exists():
        process.run(["udevadm", "settle", "--timeout=60"], timeout_s=90)
    assert not (Path("/dev/mapper") / name).is_symlink()
    named = [path for path in Path("/dev/disk").rglob("*") if path.is_symlink()]
    device = f"dm-{places.given[disk].minor}"
    assert [path for path in named if path.readlink().name == device] == []


def test_a_guest_that_writes_all_of_its_disk_twice_does_not_fill_it(places, base, layout):
    disk = places.create(base)
    order = list(range(1, BLOCKS))
    random.Random(5).shuffle(order)
    for value in (b"1", b"2"):
        for block in order:
            write(places.given[disk], block * BLOCK, value * BLOCK)
        sync(places.given[disk])
    with control_of(layout, disk) as (control, name):
        used, total = control.status(name)[0].params.split()[0].split("/")
    assert int(used) <= int(total)
    assert places.driver.status(disk).lost == ""
    flat = places.driver.flatten(disk, places.new())
    assert flat.read_bytes()[BLOCK:] == b"2" * BLOCK * (BLOCKS - 1)


@pytest.mark.smoke
def test_what_the_guest_discards_is_given_back(places, base):
    disk = places.create(base, disk_mib=8)
    places.write(disk, MIB, os.urandom(2 * MIB))
    places.write(disk, 6 * MIB, os.urandom(MIB))
    sync(places.given[disk])
    before = disk_usage(disk)
    assert before >= 3 * MIB
    with devices.opened(places.given[disk], os.O_RDWR) as fd:
        fcntl.ioctl(fd, BLKDISCARD, struct.pack("QQ", MIB, 2 * MIB))
        fcntl.ioctl(fd, BLKDISCARD, struct.pack("QQ", 6 * MIB, MIB))
        os.fsync(fd)
    assert disk_usage(disk) <= before - 2 * MIB
    kept = places.driver.snapshot(disk, places.new())
    assert disk_usage(kept) <= disk_usage(disk) + 64 * 1024
    again = places.clone(kept)
    assert places.read(again, MIB, 2 * MIB) == places.read(disk, MIB, 2 * MIB)


def test_remove_waits_for_who_has_it_open(places, base, layout):
    disk = places.create(base)
    with ExitStack() as held:
        held.enter_context(devices.opened(places.given[disk], os.O_RDONLY))
        with control_of(layout, disk) as (control, name), pytest.raises(OSError, match="busy"):
            control.remove(name)
        remover = threading.Thread(target=places.driver.remove, args=(disk,))
        remover.start()
        held.close()
        remover.join()
    with control_of(layout, disk) as (control, name):
        assert control.info(name) is None
    assert list(disk.parent.iterdir()) == []


def test_a_device_in_use_is_not_removed_and_nothing_of_it(places, base, layout):
    disk = places.create(base)
    impatient = disks.DmDriver(layout.installation, places.driver._loops, remove_s=0.2)
    with devices.opened(places.given[disk], os.O_RDONLY):
        for act in (impatient.remove, impatient.release):
            with pytest.raises(DeadlineExceeded, match="still in use"):
                act(disk)
        with pytest.raises(DeadlineExceeded):
            impatient.reopen(disk, uid=0)
        places.write(disk, 0, b"it goes on")
    assert places.read(disk, 0, 10) == b"it goes on"


WORKS = {
    "create": lambda places, base, disk, kept: places.driver.create(base, disk, uid=0),
    "clone": lambda places, base, disk, kept: places.driver.clone(kept, disk, uid=0),
    "spawn": lambda places, base, disk, kept: places.driver.clone(
        kept.with_name("flat"), disk, uid=0, disk_mib=8
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("work", WORKS)
def test_killed_at_each_step_of_making(places, base, layout, work):
    first = places.create(base)
    places.write(first, MIB, b"kept")
    kept = places.driver.snapshot(first, places.new())
    places.driver.flatten(first, kept.with_name("flat"))
    for call in range(1000):
        disk = places.new()
        was_killed = run_and_kill(
            lambda disk=disk: WORKS[work](places, base, disk, kept), call, only=STEPS
        )
        assert places.driver.remove(disk) is None
        shutil.rmtree(disk.parent)
        check_loops(layout, 2)
        if not was_killed:
            break
    else:
        raise AssertionError("it never came to its end")
    assert call > 10
    assert places.read(first, MIB, 4) == b"kept"


@pytest.mark.long
@pytest.mark.parametrize("keep", ["snapshot", "flatten"])
def test_killed_at_each_step_of_keeping(places, base, layout, keep):
    """What it has stopped goes on when it is mended; what it has half made can be thrown away."""
    disk = places.create(base)
    places.write(disk, MIB, b"then")
    for call in range(1000):
        target = places.new()
        was_killed = run_and_kill(
            lambda target=target: getattr(places.driver, keep)(disk, target), call, only=STEPS
        )
        places.driver.mend(disk)
        with control_of(layout, disk) as (control, name):
            assert not control.info(name).is_suspended
        places.write(disk, 2 * MIB, call.to_bytes(4, "little"))
        if not was_killed:
            break
        shutil.rmtree(target.parent)
    else:
        raise AssertionError("it never came to its end")
    again = places.clone(target)
    assert places.read(again, MIB, 4) == b"then"
    # Two disks; and their one base, or the flattened one, which is a base too.
    check_loops(layout, 3 if keep == "snapshot" else 4)


@pytest.mark.long
def test_killed_at_each_step_of_removing(places, base, layout):
    for call in range(1000):
        disk = places.create(base)
        was_killed = run_and_kill(lambda disk=disk: places.driver.remove(disk), call, only=STEPS)
        places.remove(disk)
        assert list(disk.parent.iterdir()) == []
        check_loops(layout, 0)
        if not was_killed:
            break
    assert call > 2


def test_a_vmm_that_waits_for_a_disk_that_stands_can_be_ended_once_it_is_mended(
    places, base, layout
):
    disk = places.create(base)
    with control_of(layout, disk) as (control, name):
        control.suspend(name)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                with devices.opened(places.given[disk], os.O_RDWR | os.O_DIRECT) as fd:
                    os.write(writer, b"x")
                    os.preadv(fd, [devices_buffer()], 0)
            finally:
                os._exit(0)
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        places.driver.mend(disk)
        assert not control.info(name).is_suspended
    os.waitpid(child, 0)
    places.write(disk, 0, b"well")


def devices_buffer():
    """Memory that direct I/O takes."""
    import mmap

    return mmap.mmap(-1, BLOCK)


def test_power_goes_while_it_writes(places, base, tmp_path):
    """The file is copied in the midst of writes. What comes back is, block by block, something
    that was written there, or the base's: never another's."""
    disk = places.create(base)
    stop = threading.Event()
    rounds = []

    def writing():
        number = 0
        while not stop.is_set():
            number += 1
            for block in random.Random(number).sample(range(1, BLOCKS), 40):
                write(places.given[disk], block * BLOCK, page(number, block))
            sync(places.given[disk])
            rounds.append(number)

    writer = threading.Thread(target=writing)
    writer.start()
    try:
        for _ in range(3):
            before = len(rounds)
            while len(rounds) < before + 2 and writer.is_alive():
                stop.wait(0.01)
            copied = places.new()
            shutil.copy(disk, copied)
            for path in disk.parent.glob("base.*"):
                os.link(path, copied.parent / path.name)
            places.reopen(copied)
            check_blocks(places.read(copied), base.read_bytes(), len(rounds) + 1)
            flat = places.driver.flatten(copied, places.new())
            assert flat.read_bytes() == places.read(copied)
    finally:
        stop.set()
        writer.join()
    assert rounds


def page(number, block):
    return struct.pack("<II", number, block) * (BLOCK // 8)


def check_blocks(found, base, last):
    for block in range(1, BLOCKS):
        data = found[block * BLOCK : (block + 1) * BLOCK]
        if data == base[block * BLOCK : (block + 1) * BLOCK]:
            continue
        number, at = struct.unpack_from("<II", data)
        assert at == block
        assert 1 <= number <= last
        assert data == page(number, block), f"block {block} is torn"


@pytest.fixture
def small(tmp_path, leak_check):
    """Disks on a filesystem of 24 MiB, and a base of 16 MiB elsewhere."""
    with on_loop(tmp_path, "ext4", 24) as mount:
        layout = Layout.prepare(mount / "data")
        leak_check.watch(layout.installation, tmp_path)
        base = make_base(mount / "base.img", {}, 4096)
        places = Places(layout.sandboxes, drivers.named(layout, "dm"))
        try:
            yield places, base
        finally:
            places.remove_all()


def test_a_full_filesystem_loses_the_disk_and_it_is_said(small):
    places, base = small
    disk = places.create(base)
    assert "almost full" in trouble(places.driver.status(disk), 0)  # long before
    assert places.driver.status(disk).free_bytes < RESERVE_BYTES
    kept = places.driver.snapshot(disk, places.new())
    with pytest.raises(OSError, match=r"Input/output error|No space left"):
        write_and_fill(places, disk)
    for path in disk.parent.glob("fill*"):
        path.unlink()
    found = places.driver.status(disk)
    assert "Invalid" in found.lost
    assert "is lost" in trouble(found, 0)
    for keep in (places.driver.snapshot, places.driver.flatten):
        target = places.new()
        with pytest.raises((DiskFailed, SnapshotBroken)):
            keep(disk, target)
        assert list(target.parent.iterdir()) == []
    with pytest.raises(SnapshotBroken, match="given it up"):
        places.driver.reopen(disk, uid=0)
    places.remove(disk)
    assert places.read(places.clone(kept)) == base.read_bytes()


def write_and_fill(places, disk):
    """The disk is written, and others use up what is free."""
    for at in range(1, 16):
        places.write(disk, at * MIB, os.urandom(MIB))
        with suppress(OSError), (disk.parent / f"fill{at}").open("wb", buffering=0) as file:
            file.write(os.urandom(2 * MIB))  # as much of it as fits
            os.fsync(file.fileno())
        sync(places.given[disk])


def test_a_full_filesystem_fails_what_is_made_and_nothing_else(small):
    places, base = small
    disk = places.create(base)
    places.write(disk, MIB, os.urandom(8 * MIB))
    sync(places.given[disk])
    then = places.read(disk)
    kept = places.driver.snapshot(disk, places.new())
    before = sorted(places.directory.rglob("*"))
    for make in (
        lambda: places.driver.snapshot(disk, places.new()),
        lambda: places.driver.flatten(disk, places.new()),
        lambda: places.driver.clone(kept, places.new(), uid=0),
    ):
        with pytest.raises(NoCapacity, match="full"):
            make()
    left = {path for path in places.directory.rglob("*") if path.is_file()}
    assert left == {path for path in before if path.is_file()}
    assert places.read(disk) == then
    assert places.driver.status(disk).lost == ""
    places.write(disk, MIB, b"it goes on")


def test_a_disk_of_another_base_is_refused_before_anything_is_made(places, base, layout):
    disk = places.create(base)
    places.driver.release(disk)
    (link,) = disk.parent.glob(f"{cow.BASE_PREFIX}*")
    original = link.rename(link.with_name("original"))
    make_base(link, {1: b"another"}, BLOCKS, mark=b"another")
    with pytest.raises(SnapshotBroken, match="another one"):
        places.driver.reopen(disk, uid=0)
    link.unlink()
    with pytest.raises(SnapshotBroken, match="missing"):
        places.driver.reopen(disk, uid=0)
    check_loops(layout, 0)
    original.rename(link)
    places.reopen(disk)


def test_devices_of_the_dead_are_found_by_name_and_those_of_others_left(places, base, layout):
    one, two = places.create(base), places.create(base)
    shutil.rmtree(one.parent)
    assert disks.attached(layout.installation) == {one.parent.name, two.parent.name}
    assert disks.attached("zzz999") == set()
    disks.release("zzz999", one.parent.name)
    disks.release(layout.installation, one.parent.name)
    del places.given[one]
    assert disks.attached(layout.installation) == {two.parent.name}
    places.write(two, 0, b"it lives")
    check_loops(layout, 2)


def test_a_device_that_was_never_given_a_table_is_removed(places, layout):
    disk = places.new()
    with control_of(layout, disk) as (control, name):
        control.create(name, name.upper())
        assert not control.info(name).has_table
        places.driver.mend(disk)
        places.driver.remove(disk)
        assert control.info(name) is None
