"""Guests that live on dm disks: booted, paused, resumed, frozen, spawned, stopped in time."""

import os
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from kept_sandbox import KeptSandbox
from wrennd.core.config import Config
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxRequest
from wrennd.core.states import State
from wrennd.core.timings import Timings
from wrennd.host import record
from wrennd.host.disk_watch import RESERVE_BYTES
from wrennd.host.local_snapshots import LocalSnapshots
from wrennd.linux import dm
from wrennd.network.addressing import FIRST_UID
from wrennd.storage import drivers
from wrennd.storage.dm import device_name

MEM_MIB = 128
LONGER_MIB = 5000
TEMPLATE = "lab-dm"
# More than the guest's memory could hold, and read from the disk again.
WRITE = "cd /home/user; head -c 5000000 /dev/urandom > {0}; md5sum {0} > {0}.sum; sync"
CHECK = "cd /home/user; echo 3 > /proc/sys/vm/drop_caches; for f in *.sum; do md5sum -c $f; done"


@pytest.fixture
def made(sandboxes, config):
    """Makes sandboxes, and ends them."""
    with ExitStack() as held:

        def make(template="busybox", **wanted):
            sandbox = KeptSandbox(sandboxes, config)
            held.callback(sandbox.kill)
            if template == "busybox":
                wanted["mem_mib"] = MEM_MIB
            wanted = SandboxRequest(id=sandbox.id, template=template, **wanted)
            sandboxes.create(wanted, Timings())
            return sandbox

        yield make


@pytest.fixture
def template(sandboxes):
    """The name of one that a test makes."""
    yield TEMPLATE
    snapshots = LocalSnapshots(sandboxes)
    if any(found.name == TEMPLATE for found in snapshots.list()):
        snapshots.remove(TEMPLATE)


def check(sandbox, *names):
    assert sandbox.sh(CHECK).split() == [word for name in names for word in (f"{name}:", "OK")]


def users(layout):
    """How many devices each base's loop device has, where it has any: udev may keep one that went
    for a moment."""
    found = drivers.named(layout, "dm")._loops.users()
    return sorted(len(one.users) for one in found if one.users)


@pytest.mark.smoke
def test_a_life_in_short(made, sandboxes, layout, template):
    """Booted, paused, resumed, frozen, spawned: with one boot, since that is what takes long."""
    sandbox = made()
    sandbox.sh(WRITE.format("one"))
    sandbox.pause()
    assert users(layout) == []
    sandbox.resume()
    assert (sandbox.record.overlay, users(layout)) == ("dm", [1])
    LocalSnapshots(sandboxes).create(sandbox.id, template, Timings())
    child = made(template)
    assert users(layout) == [1, 1]
    child.sh(WRITE.format("own"))
    check(child, "one", "own")
    check(sandbox, "one")


def test_it_lives_on_a_device_that_only_it_can_open(made, layout):
    sandbox = made()
    found = sandbox.record
    assert found.overlay == "dm"
    with dm.opened() as control:
        device = control.info(device_name(layout.installation, sandbox.id)).device
    seen = Path(f"/proc/{found.vmm_pid}/root/disk/rootfs.ext4").stat()
    assert stat.S_ISBLK(seen.st_mode)
    assert (seen.st_rdev, seen.st_mode & 0o777) == (device.dev, 0o600)
    assert seen.st_uid == FIRST_UID + found.slot
    sandbox.sh(WRITE.format("one"))
    check(sandbox, "one")
    assert sandbox.paths.disk.stat().st_blocks * 512 < 64 << 20
    sandbox.kill()
    with dm.opened() as control:
        assert control.info(device_name(layout.installation, sandbox.id)) is None


def test_paused_and_resumed_its_disk_is_of_that_moment(made, layout):
    sandbox = made()
    for name in ("one", "two"):
        sandbox.sh(WRITE.format(name))
        sandbox.pause()
        assert users(layout) == []
        sandbox.resume()
        assert sandbox.record.overlay == "dm"
    check(sandbox, "one", "two")
    sandbox.sh(WRITE.format("three"))
    sandbox.snapshot()
    check(sandbox, "one", "three", "two")


def test_frozen_it_spawns_others_that_have_disks_of_their_own(made, sandboxes, layout, template):
    parent = made()
    parent.sh(WRITE.format("one"))
    LocalSnapshots(sandboxes).create(parent.id, template, Timings())
    children = [made(template), made(template, disk_mib=LONGER_MIB)]
    assert users(layout) == [1, 2]
    for number, child in enumerate(children):
        check(child, "one")
        child.sh(WRITE.format(f"own{number}"))
    parent.sh(WRITE.format("two"))
    for number, child in enumerate(children):
        check(child, "one", f"own{number}")
    check(parent, "one", "two")
    assert int(children[1].sh("cat /sys/block/vda/size")) >> 11 == LONGER_MIB
    assert int(children[1].sh("df -m / | tail -n 1").split()[1]) > LONGER_MIB * 0.95


def test_it_is_resumed_as_a_plain_file_and_on_a_device_again(made, sandboxes, layout):
    sandbox = made()
    sandbox.sh(WRITE.format("one"))
    sandbox.pause()
    plain = KeptSandbox(sandboxes, Config(data_dir=layout.data_dir, overlay="copy"))
    plain.id, plain.paths = sandbox.id, sandbox.paths
    plain.resume()
    assert (plain.record.overlay, users(layout)) == ("copy", [])
    plain.sh(WRITE.format("two"))
    plain.pause()
    sandbox.resume()
    assert (sandbox.record.overlay, users(layout)) == ("dm", [1])
    check(sandbox, "one", "two")


def test_it_is_stopped_before_the_filesystem_below_is_full(made, sandboxes, layout):
    sandbox = made()
    sandbox.sh(WRITE.format("one"))
    filler = layout.data_dir / "filler"
    try:
        with filler.open("wb") as file:
            free = os.fstatvfs(file.fileno()).f_bavail * os.fstatvfs(file.fileno()).f_frsize
            os.posix_fallocate(file.fileno(), 0, free - RESERVE_BYTES // 2)
        (listed,) = [one for one in sandboxes.list() if one.id == sandbox.id]
        assert listed.state is State.ERROR
        assert "almost full" in listed.error
    finally:
        filler.unlink()
    sandboxes.resume(sandbox.id, Timings(), cold=True)
    check(sandbox, "one")


def test_what_a_killed_owner_left_goes_and_what_runs_stays(made, sandboxes, layout):
    """As after a crash: a device and a disk that no record speaks of, beside one that runs."""
    sandbox = made()
    sandbox.sh(WRITE.format("one"))
    stray = layout.sandbox(new_sandbox_id())
    stray.data.mkdir()
    base = next(sandbox.paths.data.glob("base.*"))
    drivers.named(layout, "dm").create(base, stray.disk, uid=0)
    assert users(layout) == [2]
    assert [one.id for one in sandboxes.list()] == [sandbox.id]
    assert users(layout) == [1]
    assert not stray.data.exists()
    assert record.load(sandbox.paths).state is State.RUNNING
    check(sandbox, "one")
