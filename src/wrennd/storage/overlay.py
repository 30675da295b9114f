"""The seam `Driver`: how a sandbox gets a disk of its own from a base that never changes, how the
disk of one moment is kept with a snapshot, and how a disk is made of that again.

Drivers: `reflink` (a clone that shares blocks; XFS, btrfs) and `copy` (a sparse copy; anywhere).
Both keep the disk in one file, a snapshot's as well. `choose` finds out what a directory's
filesystem can do by doing it. The contract of all drivers is
`tests/contract/storage/test_overlay.py`.
"""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from wrennd.core.errors import HostUnsuitable, ImageBroken, NoCapacity, SnapshotBroken
from wrennd.linux import files


class Driver(Protocol):
    """Makes and unmakes disks. Stateless: what exists is on the host, not in the object."""

    @property
    def name(self) -> str: ...

    def create(self, base: Path, disk: Path, *, uid: int) -> Path:
        """Make the disk for `uid` alone and say where a VMM finds it (a file or a device).

        Errors: NoCapacity when the filesystem is full; ImageBroken when there is no base;
        FileExistsError when there is a disk already. After an error nothing is left.
        """

    def snapshot(self, disk: Path, target: Path) -> Path:
        """Keep the disk as it is now in the new file `target`: whole, read-only, and written out.

        Nothing may write to the disk meanwhile: its VM is paused. The caller owns the target, and
        syncs its directory. Errors: as of `create`, FileNotFoundError when there is no such disk.
        """

    def clone(self, kept: Path, disk: Path, *, uid: int) -> Path:
        """Make a disk for `uid` alone of one that `snapshot` has kept, which stays as it is.

        Returns and errors: as of `create`, but SnapshotBroken when it is missing.
        """

    def remove(self, disk: Path) -> None:
        """Unmake it; nothing happens when there is none."""


class _FileDriver:
    """A disk that is one file, filled from another by one function."""

    def __init__(self, name: str, fill: Callable[[int, int], None]) -> None:
        self.name = name
        self._fill = fill

    def create(self, base: Path, disk: Path, *, uid: int) -> Path:
        missing = ImageBroken(
            f"the root filesystem {base} is missing", hint="run wrenn setup --force"
        )
        with _opened(base, missing) as source:
            return self._make(source, disk, lambda target: os.fchown(target, uid, uid))

    def snapshot(self, disk: Path, target: Path) -> Path:
        missing = FileNotFoundError(errno.ENOENT, f"the disk {disk} is missing")
        with _opened(disk, missing) as source:
            return self._make(source, target, _finish_kept)

    def clone(self, kept: Path, disk: Path, *, uid: int) -> Path:
        missing = SnapshotBroken(f"the disk {kept} of the snapshot is missing")
        with _opened(kept, missing) as source:
            return self._make(source, disk, lambda target: os.fchown(target, uid, uid))

    def _make(self, source: int, path: Path, finish: Callable[[int], None]) -> Path:
        target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._fill(source, target)
            finish(target)
        except BaseException as error:
            path.unlink()
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoCapacity(
                    f"the filesystem of {path.parent} is full: no disk could be made",
                    hint="free some space, or choose another --data-dir",
                ) from error
            raise
        finally:
            os.close(target)
        return path

    def remove(self, disk: Path) -> None:
        disk.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path, missing: Exception) -> Iterator[int]:
    """A descriptor to read from. Errors: `missing` when there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise missing from None
    try:
        yield fd
    finally:
        os.close(fd)


def _finish_kept(target: int) -> None:
    """Where blocks are allocated late, a full disk shows here only. Errors: OSError."""
    os.fchmod(target, 0o444)
    os.fsync(target)


def copy_driver() -> Driver:
    return _FileDriver("copy", files.copy_sparse)


def reflink_driver() -> Driver:
    return _FileDriver("reflink", files.clone)


def named(name: str) -> Driver:
    """The driver that a record names. Errors: HostUnsuitable for one that is not known here."""
    drivers = {driver.name: driver for driver in (copy_driver(), reflink_driver())}
    if name not in drivers:
        raise HostUnsuitable(f"there is no disk driver {name!r} here")
    return drivers[name]


def choose(directory: Path, wanted: str) -> Driver:
    """The best driver for disks in `directory`, or the wanted one if it works there.

    Errors: HostUnsuitable when `reflink` is wanted and the filesystem can't clone.
    """
    if wanted == "copy":
        return copy_driver()
    if can_clone(directory):
        return reflink_driver()
    if wanted == "reflink":
        raise HostUnsuitable(
            f"the filesystem of {directory} can't clone files",
            hint="put the data directory on XFS or btrfs, or use WRENN_OVERLAY=auto",
        )
    return copy_driver()


def can_clone(directory: Path) -> bool:
    """Whether FICLONE works there, tried on two files without names."""
    with (
        tempfile.TemporaryFile(dir=directory) as source,
        tempfile.TemporaryFile(dir=directory) as target,
    ):
        source.write(b"\0" * 4096)
        source.flush()
        try:
            files.clone(source.fileno(), target.fileno())
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENOSYS):
                return False
            raise
    return True
