"""Device nodes: character devices that VMMs use, and block devices that are named by numbers only.

A block device is a pair of numbers. Its node in /dev may be missing (no devtmpfs, no udev) or be
somebody else's to make, so nothing here trusts a name: what is opened is checked for its numbers.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

DEV = Path("/dev")


def node(path: str) -> tuple[str, int, int]:
    """The device's numbers. Errors: FileNotFoundError; OSError when it is no character device."""
    found = Path(path).stat()
    if not stat.S_ISCHR(found.st_mode):
        raise OSError(f"{path} is not a character device")
    return (path, os.major(found.st_rdev), os.minor(found.st_rdev))


def nodes(*paths: str) -> tuple[tuple[str, int, int], ...]:
    """Those of `paths` that exist here."""
    return tuple(node(path) for path in paths if Path(path).exists())


@dataclass(frozen=True)
class BlockDevice:
    """A block device, by its numbers. As text it is what device-mapper's tables want."""

    major: int
    minor: int

    @classmethod
    def from_dev(cls, dev: int) -> Self:
        return cls(os.major(dev), os.minor(dev))

    @property
    def dev(self) -> int:
        return os.makedev(self.major, self.minor)

    def __str__(self) -> str:
        return f"{self.major}:{self.minor}"


@contextmanager
def opened(device: BlockDevice, flags: int, *, name: str = "") -> Iterator[int]:
    """A descriptor of a block device for the length of the block. Errors: as of `open_device`."""
    fd = open_device(stat.S_IFBLK, device.dev, flags, name=name)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def node_of(device: BlockDevice, *, name: str) -> Iterator[Path]:
    """A node of a block device for the length of the block: `name` below /dev if that is it, else
    one of our own. Errors: OSError, as of `open_device`."""
    path = DEV / name
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        if stat.S_ISBLK(found.st_mode) and found.st_rdev == device.dev:
            yield path
            return
    path = DEV / f".wrenn-{secrets.token_hex(8)}"
    os.mknod(path, stat.S_IFBLK | 0o600, device.dev)
    try:
        yield path
    finally:
        path.unlink()


def open_device(kind: int, dev: int, flags: int, *, name: str = "") -> int:
    """Open the device with these numbers: by `name` below /dev if that is it, else by a node of our
    own, which is gone on return. kind: S_IFBLK or S_IFCHR.

    Errors: OSError; ENXIO, ENODEV when the kernel has no such device; EPERM, EACCES where a
    container may not make nodes or a filesystem is mounted without devices.
    """
    flags |= os.O_CLOEXEC
    if name:
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(DEV / name, flags)
            found = os.fstat(fd)
            if stat.S_IFMT(found.st_mode) == kind and found.st_rdev == dev:
                return fd
            os.close(fd)
    path = DEV / f".wrenn-{secrets.token_hex(8)}"
    os.mknod(path, kind | 0o600, dev)
    try:
        return os.open(path, flags)
    finally:
        path.unlink()
