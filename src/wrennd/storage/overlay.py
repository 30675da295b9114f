"""The seam `Driver`: how a sandbox gets a disk of its own from a base that never changes, how the
disk of one moment is kept with a snapshot, and how a disk is made of that again.

Drivers: `dm` (device-mapper, `storage/dm.py`), `reflink` (a clone that shares blocks; XFS, btrfs)
and `copy` (a sparse copy; anywhere). A disk is one file, whatever driver made it: a filesystem as
it is, or what differs from a base (`storage/cow.py`). Every driver makes a disk of every kept one,
so a data directory may hold several kinds. Which driver it is to be, `storage/drivers.py` says; the
contract of all of them is `tests/contract/storage/test_overlay.py`.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wrennd.core.errors import ImageBroken, InvalidInput, NoCapacity, SnapshotBroken
from wrennd.linux import files
from wrennd.linux.devices import BlockDevice
from wrennd.storage import cow
from wrennd.storage.base import NotABase, base_of_cow, check_base
from wrennd.storage.usage import disk_usage

# What a VMM is given: a file, or a device of which it gets a node of its own.
Given = Path | BlockDevice
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Status:
    """How a disk does. Bytes: of the disk, taken on the host's, and free there.

    lost: why its data can't be had any more, "" while they can.
    """

    size_bytes: int
    used_bytes: int
    free_bytes: int
    lost: str = ""


class Driver(Protocol):
    """Makes and unmakes disks. Stateless: what exists is on the host, not in the object.

    A disk's path is that of its file, in the directory of its sandbox, which has its id for a name.
    After an error of anything that makes something, nothing of it is left.
    """

    @property
    def name(self) -> str: ...

    def create(self, base: Path, disk: Path, *, uid: int, disk_mib: int = 0) -> Given:
        """Make a disk of a base image for `uid` alone, and say what a VMM is given for it.

        disk_mib: how long it is to be, 0: as the base. What is behind the base reads as zeros.
        Errors: NoCapacity when the filesystem is full, or there are no more devices; ImageBroken
        when there is no base, or it is none; InvalidInput when it is to be shorter than its base;
        FileExistsError when there is a disk already.
        """

    def snapshot(self, disk: Path, target: Path, *, is_synced: bool = True) -> Path:
        """Keep the disk as it is now as the new file `target`: whole, read-only, and written out.

        is_synced: false leaves the last to the caller, who then may learn only from its fsync that
        the filesystem is full.

        Beside it a hard link to its base may appear (`cow.BASE_PREFIX`). Nothing may write to the
        disk meanwhile: its VM is paused. The caller owns the target's directory, and syncs it.
        Returns the target. Errors: as of `create`, FileNotFoundError when there is no such disk,
        DiskFailed when its data are lost.
        """

    def flatten(self, disk: Path, target: Path) -> Path:
        """As `snapshot`, of a disk or a kept one, as one file that needs no base."""

    def clone(self, kept: Path, disk: Path, *, uid: int, disk_mib: int = 0) -> Given:
        """Make a disk of one that any driver has kept, which stays as it is.

        Returns and errors: as of `create`, but SnapshotBroken when it is missing or is none.
        """

    def reopen(self, disk: Path, *, uid: int) -> Given:
        """Take a disk that is there, and that nobody uses, into use for `uid` alone.

        Errors: SnapshotBroken when there is none, or it is not whole; NoCapacity.
        """

    def mend(self, disk: Path) -> None:
        """Let I/O go on that somebody who was killed has stopped: before its VMM is told anything,
        or is killed. Nothing happens otherwise, or when there is no disk."""

    def release(self, disk: Path) -> None:
        """Take it out of use; its data stay. Its VMM has ended. Nothing happens without one."""

    def remove(self, disk: Path) -> None:
        """Unmake it, as `release`; nothing happens when there is none."""

    def size(self, disk: Path) -> int:
        """Its length in bytes, of a kept one too. Errors: FileNotFoundError, SnapshotBroken."""

    def status(self, disk: Path) -> Status:
        """Errors: FileNotFoundError, SnapshotBroken."""


class FileDriver:
    """A disk that is one file, filled from another by one function."""

    def __init__(self, name: str, fill: Callable[[int, int], None]) -> None:
        self.name = name
        self._fill = fill

    def create(self, base: Path, disk: Path, *, uid: int, disk_mib: int = 0) -> Given:
        with opened_base(base) as source:
            length = length_of(disk_mib, os.fstat(source).st_size)
            return self._make(lambda target: self._fill(source, target), disk, uid, length)

    def snapshot(self, disk: Path, target: Path, *, is_synced: bool = True) -> Path:
        with opened_disk(disk) as source, new_file(target) as made:
            self._fill_from(source, disk.parent, made)
            finish_kept(made, is_synced=is_synced)
        return target

    def flatten(self, disk: Path, target: Path) -> Path:
        return self.snapshot(disk, target)

    def clone(self, kept: Path, disk: Path, *, uid: int, disk_mib: int = 0) -> Given:
        with opened_kept(kept) as source:
            length = length_of(disk_mib, size_of(source, kept))
            return self._make(
                lambda target: self._fill_from(source, kept.parent, target), disk, uid, length
            )

    def _fill_from(self, source: int, directory: Path, target: int) -> None:
        """With a disk of either kind; its base, if it has one, lies in `directory`."""
        if not cow.is_cow(source):
            self._fill(source, target)
            return
        with broken_as(SnapshotBroken, directory), base_of_cow(source, directory) as base:
            cow.flatten(source, base, target)

    def _make(self, fill: Callable[[int], None], disk: Path, uid: int, length: int) -> Given:
        with new_file(disk) as target:
            fill(target)
            os.ftruncate(target, length)
            os.fchown(target, uid, uid)
        return disk

    def reopen(self, disk: Path, *, uid: int) -> Given:
        with opened_kept(disk) as source:
            if cow.is_cow(source):
                raise SnapshotBroken(f"the disk {disk} is one of the driver dm, not {self.name}")
            os.fchown(source, uid, uid)
        return disk

    def mend(self, disk: Path) -> None:
        """No file stops any I/O."""

    def release(self, disk: Path) -> None:
        """A file is in use by nobody but its VMM."""

    def remove(self, disk: Path) -> None:
        disk.unlink(missing_ok=True)

    def size(self, disk: Path) -> int:
        with opened_disk(disk) as fd:
            return size_of(fd, disk)

    def status(self, disk: Path) -> Status:
        return status_of(disk, self.size(disk))


def status_of(disk: Path, size_bytes: int, *, lost: str = "") -> Status:
    """What the filesystem knows of a disk."""
    there = os.statvfs(disk)
    return Status(
        size_bytes=size_bytes,
        used_bytes=disk_usage(disk),
        free_bytes=there.f_bavail * there.f_frsize,
        lost=lost,
    )


def copy_driver() -> Driver:
    return FileDriver("copy", files.copy_sparse)


def reflink_driver() -> Driver:
    return FileDriver("reflink", files.clone)


def length_of(disk_mib: int, least: int) -> int:
    """Of a disk that is to have `disk_mib`, made of `least` bytes. Errors: InvalidInput."""
    if disk_mib and disk_mib * MIB < least:
        raise InvalidInput(
            f"a disk of {disk_mib} MiB is too small: what it is made of has {least / MIB:g} MiB",
            hint="leave --disk out, or give a larger one",
        )
    return disk_mib * MIB or least


def size_of(fd: int, path: Path) -> int:
    """Of a disk of either kind, in bytes. Errors: SnapshotBroken."""
    if not cow.is_cow(fd):
        return os.fstat(fd).st_size
    with broken_as(SnapshotBroken, path):
        return cow.read_header(fd).disk_bytes


@contextmanager
def broken_as(kind: type[ImageBroken | SnapshotBroken], path: Path) -> Iterator[None]:
    """Say of what is not a whole disk that `path` is broken."""
    try:
        yield
    except cow.CowError as error:
        raise kind(f"the disk {path} is broken: {error}") from error


@contextmanager
def opened_base(path: Path) -> Iterator[int]:
    """A base image to read from. Errors: ImageBroken when it is missing, or is no whole ext4."""
    missing = ImageBroken(f"the root filesystem {path} is missing", hint="run wrenn setup --force")
    with _opened(path, missing) as fd:
        try:
            check_base(fd)
        except NotABase as error:
            raise ImageBroken(
                f"the root filesystem {path} is broken: {error}", hint="run wrenn setup --force"
            ) from error
        yield fd


def opened_disk(path: Path) -> contextlib.AbstractContextManager[int]:
    """Errors: FileNotFoundError."""
    return _opened(path, FileNotFoundError(errno.ENOENT, f"the disk {path} is missing"))


def opened_kept(path: Path) -> contextlib.AbstractContextManager[int]:
    """Errors: SnapshotBroken when it is missing."""
    return _opened(path, SnapshotBroken(f"the disk {path} of the snapshot is missing"))


@contextmanager
def _opened(path: Path, missing: Exception) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise missing from None
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def new_file(path: Path) -> Iterator[int]:
    """A file that is not there yet, for us alone; gone when its block fails.

    Errors: FileExistsError; NoCapacity when the filesystem is full, at any point in the block.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with full_is_no_capacity(path.parent), contextlib.ExitStack() as undo:
        fd = os.open(path, flags, 0o600)
        undo.callback(path.unlink)
        try:
            yield fd
        finally:
            os.close(fd)
        undo.pop_all()


@contextmanager
def full_is_no_capacity(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoCapacity(
            f"the filesystem of {directory} is full: no disk could be made",
            hint="free some space, or choose another --data-dir",
        ) from error


def finish_kept(target: int, *, is_synced: bool = True) -> None:
    """Where blocks are allocated late, a full disk shows in the sync only. Errors: OSError."""
    os.fchmod(target, 0o444)
    if is_synced:
        os.fsync(target)


@contextmanager
def overlay(driver: Driver, base: Path, disk: Path, *, uid: int) -> Iterator[Given]:
    """A disk for the length of the block: what the VMM is given."""
    made = driver.create(base, disk, uid=uid)
    with contextlib.ExitStack() as held:
        held.callback(driver.remove, disk)
        yield made


@contextmanager
def restored(driver: Driver, kept: Path, disk: Path, *, uid: int) -> Iterator[Given]:
    """As `overlay`, of a disk that a snapshot has kept."""
    made = driver.clone(kept, disk, uid=uid)
    with contextlib.ExitStack() as held:
        held.callback(driver.remove, disk)
        yield made
