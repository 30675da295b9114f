"""What disks are made from: whether a file can be a base, and the link by which a disk holds its.

Nothing of a base is ever mounted or repaired here: only its superblock is looked at, as bytes.
"""

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wrennd.linux import files
from wrennd.storage.cow import CHUNK, CowError, CowHeader, base_id, read_header

# fs/ext4/ext4.h, struct ext4_super_block: at byte 1024; little-endian.
_SUPERBLOCK, _SIZE = 1024, 1024
_MAGIC = 0xEF53
_INCOMPAT_64BIT = 0x80


class NotABase(ValueError):
    """This file is no root filesystem, or not all of one. Says why, as a clause."""


def check_base(fd: int) -> None:
    """Whether a file is an ext4, as long as that says. Errors: NotABase.

    What is in it is not looked at: `wrenn image verify` does. An image without an ext4 would give a
    guest that panics, which says less.
    """
    data = os.pread(fd, _SIZE, _SUPERBLOCK)
    size = os.fstat(fd).st_size
    if len(data) < _SIZE or struct.unpack_from("<H", data, 0x38)[0] != _MAGIC:
        raise NotABase("it is no ext4 filesystem")
    wanted = filesystem_bytes(data)
    if size < wanted:
        raise NotABase(f"it was cut: it has {size} bytes, and its filesystem {wanted}")
    if size % CHUNK:
        raise NotABase(f"its {size} bytes are no whole number of blocks")


def filesystem_bytes(superblock: bytes) -> int:
    """How long the filesystem is that has this superblock."""
    (low, log_block) = (
        struct.unpack_from("<I", superblock, 0x04)[0],
        struct.unpack_from("<I", superblock, 0x18)[0],
    )
    (incompatible,) = struct.unpack_from("<I", superblock, 0x60)
    (high,) = struct.unpack_from("<I", superblock, 0x150)
    blocks = low | (high << 32 if incompatible & _INCOMPAT_64BIT else 0)
    return int(blocks << 10 + min(log_block, 6))


@contextmanager
def base_of_cow(fd: int, directory: Path) -> Iterator[int]:
    """The base of a dm disk that lies in `directory`, open for reading.

    Errors: CowError when it is missing, or is not the one that the disk was made from.
    """
    header = read_header(fd)
    path = directory / header.base_name
    try:
        base = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise CowError(f"its base {path.name} is missing") from None
    try:
        _check_is(base, header, path)
        yield base
    finally:
        os.close(base)


def _check_is(base: int, header: CowHeader, path: Path) -> None:
    size = os.fstat(base).st_size
    if size != header.base_bytes:
        raise CowError(f"its base {path.name} has {size} bytes instead of {header.base_bytes}")
    if base_id(base) != header.base_id:
        raise CowError(f"its base {path.name} was changed, or is another one")


def link_base(source: Path, target: Path) -> bool:
    """Another name for a base, which lives as long as any of its names. Between filesystems it is
    a copy. False when it has that name already. Errors: OSError.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK):
            raise
        _copy(source, target)
    return True


def _copy(source: Path, target: Path) -> None:
    made = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with source.open("rb") as opened, made.open("xb") as file:
            files.copy_sparse(opened.fileno(), file.fileno())
            os.fchmod(file.fileno(), 0o400)
            os.fsync(file.fileno())
        made.rename(target)
    finally:
        made.unlink(missing_ok=True)
