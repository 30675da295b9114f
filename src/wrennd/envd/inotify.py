"""inotify(7), which Python doesn't wrap: the three calls by ctypes, and the events' bytes.

Imported with the first watch: ctypes costs as much as a quarter of envd.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

IN_MODIFY = 0x0002
IN_ATTRIB = 0x0004
IN_MOVED_FROM = 0x0040
IN_MOVED_TO = 0x0080
IN_CREATE = 0x0100
IN_DELETE = 0x0200
IN_DELETE_SELF = 0x0400
IN_MOVE_SELF = 0x0800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x01000000
IN_DONT_FOLLOW = 0x02000000
IN_ISDIR = 0x40000000

_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK  # IN_CLOEXEC and IN_NONBLOCK have their values
# struct inotify_event: int wd; u32 mask, cookie, len; then the name, padded with NULs.
_HEAD_BYTES = 16
# A few hundred events, so that one noisy tree doesn't keep everybody waiting.
_READ_BYTES = 16 << 10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_init1.argtypes = [ctypes.c_int]
_libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
_libc.inotify_rm_watch.argtypes = [ctypes.c_int, ctypes.c_int]


class Event:
    """What happened, to which watch, and to which name in the watched directory ("": to itself)."""

    __slots__ = ("mask", "name", "wd")

    def __init__(self, wd: int, mask: int, name: str) -> None:
        self.wd = wd
        self.mask = mask
        self.name = name


def parse(data: bytes) -> Iterator[Event]:
    """The events in what was read."""
    at = 0
    while at + _HEAD_BYTES <= len(data):
        wd = int.from_bytes(data[at : at + 4], "little", signed=True)
        mask = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + _HEAD_BYTES + int.from_bytes(data[at + 12 : at + 16], "little")
        yield Event(wd, mask, os.fsdecode(data[at + _HEAD_BYTES : end].rstrip(b"\0")))
        at = end


class Inotify:
    """Owns one inotify instance. Errors: OSError (EMFILE: no more of them; ENOSPC: no more
    watches). `close` may be called twice."""

    def __init__(self) -> None:
        self.fd = _checked(_libc.inotify_init1(_FLAGS))

    def add(self, path: str, mask: int) -> int:
        return _checked(_libc.inotify_add_watch(self.fd, os.fsencode(path), mask))

    def remove(self, wd: int) -> None:
        """Nothing happens when the kernel has dropped it already."""
        _libc.inotify_rm_watch(self.fd, wd)

    def read(self) -> list[Event]:
        """What is there now; an empty list when nothing is."""
        try:
            return list(parse(os.read(self.fd, _READ_BYTES)))
        except BlockingIOError:
            return []

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
