"""A driver of disks that are plain copies: the simplest that holds the contract."""

import errno
import os
from pathlib import Path

from wrennd.core.errors import ImageBroken, SnapshotBroken
from wrennd.storage.base import NotABase, check_base
from wrennd.storage.overlay import MIB, Given, Status, length_of


class FakeDriver:
    """Reads and writes whole files; no kernel is asked for anything special.

    calls: (method, disk) in their order. fail: what a method raises instead of doing anything, by
    its name.
    """

    name = "fake"

    def __init__(self, fail: dict[str, Exception] | None = None) -> None:
        self.calls: list[tuple[str, Path]] = []
        self.fail = fail or {}

    def create(self, base: Path, disk: Path, *, uid: int, disk_mib: int = 0) -> Given:
        self._called("create", disk)
        try:
            fd = os.open(base, os.O_RDONLY)
        except FileNotFoundError:
            raise ImageBroken(f"the root filesystem {base} is missing") from None
        try:
            check_base(fd)
        except NotABase as error:
            raise ImageBroken(f"the root filesystem {base} is broken: {error}") from error
        finally:
            os.close(fd)
        return self._make(base.read_bytes(), disk, uid, disk_mib)

    def clone(self, kept: Path, disk: Path, *, uid: int, disk_mib: int = 0) -> Given:
        self._called("clone", disk)
        if not kept.exists():
            raise SnapshotBroken(f"the disk {kept} of the snapshot is missing")
        return self._make(kept.read_bytes(), disk, uid, disk_mib)

    def _make(self, data: bytes, disk: Path, uid: int, disk_mib: int) -> Given:
        data = data.ljust(length_of(disk_mib, len(data)), b"\0")
        _write_new(disk, data, 0o600)
        os.chown(disk, uid, uid)
        return disk

    def snapshot(self, disk: Path, target: Path, *, is_synced: bool = True) -> Path:
        self._called("snapshot", disk)
        if not disk.exists():
            raise FileNotFoundError(errno.ENOENT, f"the disk {disk} is missing")
        _write_new(target, disk.read_bytes(), 0o444)
        return target

    def flatten(self, disk: Path, target: Path) -> Path:
        return self.snapshot(disk, target)

    def reopen(self, disk: Path, *, uid: int) -> Given:
        self._called("reopen", disk)
        if not disk.exists():
            raise SnapshotBroken(f"the disk {disk} is missing")
        os.chown(disk, uid, uid)
        return disk

    def mend(self, disk: Path) -> None:
        self._called("mend", disk)

    def release(self, disk: Path) -> None:
        self._called("release", disk)

    def remove(self, disk: Path) -> None:
        self._called("remove", disk)
        disk.unlink(missing_ok=True)

    def size(self, disk: Path) -> int:
        return disk.stat().st_size

    def status(self, disk: Path) -> Status:
        used = disk.stat().st_blocks * 512
        return Status(size_bytes=self.size(disk), used_bytes=used, free_bytes=1024 * MIB)

    def _called(self, method: str, disk: Path) -> None:
        self.calls.append((method, disk))
        if method in self.fail:
            raise self.fail[method]


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Blocks of zeros become holes, as `cp --sparse` makes them."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for at in range(0, len(data), 4096):
            if any(block := data[at : at + 4096]):
                os.pwrite(fd, block, at)
        os.ftruncate(fd, len(data))
        os.fchmod(fd, mode)
    finally:
        os.close(fd)
