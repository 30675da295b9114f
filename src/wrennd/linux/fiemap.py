"""Where a file's blocks lie, as FIEMAP says it (Documentation/filesystems/fiemap.rst)."""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from wrennd.linux.libc import check, function

FS_IOC_FIEMAP = 0xC020660B  # _IOWR('f', 11, struct fiemap), linux/fs.h
FIEMAP_EXTENT_LAST, FIEMAP_EXTENT_UNKNOWN, FIEMAP_EXTENT_SHARED = 0x1, 0x2, 0x2000
# Filesystems whose files can share blocks: statfs(2), linux/magic.h.
XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC = 0x58465342, 0x9123683E
_SHARING = frozenset({XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC})
_HEAD = struct.Struct("=QQIIII")  # start, length, flags, mapped, room, reserved
_EXTENT = struct.Struct("=QQQQQIIII")  # logical, physical, length, 2 reserved, flags, 3 reserved
_ROOM = 1024  # extents a call
_STATFS_BYTES = 256  # more than any struct statfs
# What is said where there is no such map.
_NO_MAP = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL})

_fstatfs = function("fstatfs", ctypes.c_int, ctypes.c_void_p)


def can_share(fd: int) -> bool:
    """Whether files of this file's filesystem may share blocks."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    check(_fstatfs(fd, buffer), "fstatfs")
    kind = ctypes.c_long.from_buffer(buffer).value
    return kind & 0xFFFFFFFF in _SHARING


def shared_extents(fd: int) -> Iterator[tuple[int, int]]:
    """The [start, end) of the device that other files, or other places of this one, use too.

    Nothing where the filesystem has no such map. What is not on the disk yet is not told.
    """
    at = 0
    buffer = bytearray(_HEAD.size + _ROOM * _EXTENT.size)
    while True:
        _HEAD.pack_into(buffer, 0, at, (1 << 64) - 1 - at, 0, 0, _ROOM, 0)
        try:
            fcntl.ioctl(fd, FS_IOC_FIEMAP, buffer)
        except OSError as error:
            if error.errno in _NO_MAP:
                return
            raise
        mapped = _HEAD.unpack_from(buffer)[3]
        flags = FIEMAP_EXTENT_LAST
        extents = memoryview(buffer)[_HEAD.size : _HEAD.size + mapped * _EXTENT.size]
        for logical, physical, length, _, _, flags, *_ in _EXTENT.iter_unpack(extents):
            at = logical + length
            if flags & FIEMAP_EXTENT_SHARED and not flags & FIEMAP_EXTENT_UNKNOWN:
                yield physical, physical + length
        if flags & FIEMAP_EXTENT_LAST or not mapped:
            return


def shared_extents_of(path: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """As `shared_extents`, of a regular file by its name; symlinks are not followed."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return list(shared_extents(fd)) if can_share(fd) else []
    finally:
        os.close(fd)
