"""mount(2) and umount2(2), for the few mounts that are made in the host's own namespace."""

import ctypes
import errno
import os
from pathlib import Path

from wrennd.linux.libc import check, function

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

_mount = function(
    "mount",
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_syncfs = function("syncfs", ctypes.c_int)
_umount2 = function("umount2", ctypes.c_char_p, ctypes.c_int)


def mount_tmpfs(target: Path, *, size_bytes: int, files: int) -> None:
    """A tmpfs that holds at most `size_bytes` in at most `files` files, for root alone."""
    data = f"size={size_bytes},nr_inodes={files},mode=0700"
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    check(_mount(b"wrenn", os.fsencode(target), b"tmpfs", flags, data.encode()), target)


def mount_device(device: Path, target: Path, *, kind: str, data: str = "") -> None:
    """A filesystem that is ours, on a block device. Errors: OSError."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    source, name = os.fsencode(device), kind.encode()
    check(_mount(source, os.fsencode(target), name, flags, data.encode()), target)


def sync_filesystem(fd: int) -> None:
    """Write out all of the filesystem that `fd` is on (syncfs(2)). Errors: OSError."""
    check(_syncfs(fd), "syncfs")


def unmount(target: Path) -> None:
    """Detach what is mounted on `target`; nothing happens when nothing is, or it is gone."""
    try:
        check(_umount2(os.fsencode(target), MNT_DETACH | UMOUNT_NOFOLLOW), target)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
