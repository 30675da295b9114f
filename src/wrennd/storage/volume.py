"""A filesystem of our own in a file, where the data directory's can't clone: XFS, by a loop device.

`<data>/volume.xfs` is the file, `<data>/volume` where it is mounted. Whether there is one is told
by the file alone; whoever opens the data directory mounts it if it is not, after a restart of the
host for instance. So nothing is ever looked for, or made, in the empty directory below the mount.

Making one: the file gets its name when all that belongs into it is in it, synced; before that a
crash leaves a file and a mount of another name, which the next try takes away.

Lock: `<data>/volume.lock`, for mounting and for making. Nothing else is locked while it is held.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wrennd.core.errors import AlreadyExists, HostUnsuitable, NoCapacity
from wrennd.core.sizes import format_bytes
from wrennd.linux import files, loop, mounts, process
from wrennd.linux.process import CommandFailed

FILE = "volume.xfs"
MOUNT = "volume"
_LOCK = "volume.lock"
_UNFINISHED = "volume.xfs.tmp"
_MKFS = "/usr/sbin/mkfs.xfs"
MIN_BYTES = 1 << 30
MAX_BYTES = 1 << 40
_SHARE = 0.8  # of what is free: the rest stays for kernels, downloads, and others
_MKFS_S = 120.0


def ready(data_dir: Path) -> Path:
    """Where disks and what they are made of lie: in the volume, mounted, or in `data_dir`.

    Errors: HostUnsuitable when it can't be mounted.
    """
    if not (data_dir / FILE).exists():
        return data_dir
    target = data_dir / MOUNT
    if not _is_mounted(target):
        with files.locked(data_dir / _LOCK):
            if not _is_mounted(target):  # by another, meanwhile
                _mount(data_dir / FILE, target)
    return target


def free_below(data_dir: Path) -> int:
    """Bytes free for the volume's file: being sparse, it may promise more than there is.

    A write to the volume that finds no room here is an I/O error to its XFS, which then shuts down
    with all that is in it: who writes there keeps away from that.
    """
    there = os.statvfs(data_dir / FILE)
    return there.f_bavail * there.f_frsize


def default_bytes(data_dir: Path) -> int:
    """How long a volume is to be if nobody says it: what is left free is for the rest."""
    free = shutil.disk_usage(data_dir).free
    return min(int(free * _SHARE), MAX_BYTES) // MIN_BYTES * MIN_BYTES


@contextmanager
def made(data_dir: Path, size_bytes: int) -> Iterator[Path]:
    """A new volume, mounted; the block fills it. At its end it is there, or, if the block fails,
    nothing of it.

    Errors: AlreadyExists; NoCapacity when it would not fit, HostUnsuitable without mkfs.xfs, or
    where it can't be mounted.
    """
    _check_size(data_dir, size_bytes)
    with files.locked(data_dir / _LOCK), ExitStack() as undo:
        if (data_dir / FILE).exists():
            raise AlreadyExists(f"there is a volume in {data_dir} already")
        unfinished, target = data_dir / _UNFINISHED, data_dir / MOUNT
        _unmake(unfinished, target)  # what a crash left
        undo.callback(_unmake, unfinished, target)
        _format(unfinished, size_bytes)
        _mount(unfinished, target)
        yield target
        _sync(target)
        unfinished.rename(data_dir / FILE)
        undo.pop_all()
        files.sync_directory(data_dir)


def remove(data_dir: Path) -> None:
    """Unmount it and remove it with all that is in it; nothing happens when there is none.

    Errors: OSError.
    """
    if (data_dir / FILE).exists():
        with files.locked(data_dir / _LOCK):
            _unmake(data_dir / FILE, data_dir / MOUNT)


def _check_size(data_dir: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(data_dir).free
    if not MIN_BYTES <= size_bytes <= free:
        raise NoCapacity(
            f"a volume of {format_bytes(size_bytes)} can't be made: {data_dir} has "
            f"{format_bytes(free)} free, and {format_bytes(MIN_BYTES)} is the least",
            hint="free some space, or give another --storage-size",
        )


def _format(path: Path, size_bytes: int) -> None:
    """An XFS that can clone, in a sparse file for us alone."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size_bytes)
    finally:
        os.close(fd)
    try:
        process.run([_MKFS, "-q", "-m", "reflink=1", "-L", "wrenn", path], timeout_s=_MKFS_S)
    except FileNotFoundError as error:
        raise HostUnsuitable(
            "mkfs.xfs is missing", hint="install it: apt install xfsprogs"
        ) from error
    except CommandFailed as error:
        raise HostUnsuitable(f"the volume could not be made: {error}") from error


def _mount(path: Path, target: Path) -> None:
    """The loop device goes with the mount, whoever unmounts it."""
    target.mkdir(mode=0o700, exist_ok=True)
    try:
        with _device(path) as device:
            mounts.mount_device(device, target, kind="xfs", data="discard")
    except OSError as error:
        raise HostUnsuitable(
            f"{path} can't be mounted on {target}: {error.strerror}",
            hint="loop devices and XFS are needed: modprobe -a loop xfs; what the kernel says is "
            "in dmesg",
        ) from error
    target.chmod(0o700)


@contextmanager
def _device(path: Path) -> Iterator[Path]:
    """A loop device of the file, as long as the block and then as long as it is mounted."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fd, device = loop.attach(file, read_only=False, name="wrenn-volume")
    finally:
        os.close(file)
    try:
        with loop.node_of(device) as node:
            yield node
    finally:
        os.close(fd)


def _unmake(unfinished: Path, target: Path) -> None:
    if _is_mounted(target):
        mounts.unmount(target)
    with contextlib.suppress(FileNotFoundError):
        target.rmdir()
    unfinished.unlink(missing_ok=True)


def _is_mounted(target: Path) -> bool:
    """Whether `target` is on another filesystem than the directory that it is in."""
    try:
        return target.stat().st_dev != target.parent.stat().st_dev
    except FileNotFoundError:
        return False


def _sync(target: Path) -> None:
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mounts.sync_filesystem(fd)
    finally:
        os.close(fd)
