"""Another process's memory, read through its own page faults (process_vm_readv(2)).

Only so: what is missing is fetched by whoever serves its userfaultfd, what is swapped out comes
back. /proc/PID/mem fails with EIO on a page that a userfaultfd serves.
"""

import ctypes
import errno
from collections.abc import Sequence

from wrennd.linux.libc import check, function

MAX_RANGES = 1024  # IOV_MAX


class Iovec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_readv = function(
    "process_vm_readv",
    ctypes.c_int,
    ctypes.POINTER(Iovec),
    ctypes.c_ulong,
    ctypes.POINTER(Iovec),
    ctypes.c_ulong,
    ctypes.c_ulong,
    restype=ctypes.c_ssize_t,
)


class Reader:
    """Reads into one buffer of `capacity` bytes, again and again. Owns nothing else."""

    def __init__(self, pid: int, capacity: int) -> None:
        self.pid, self.capacity = pid, capacity
        self._buffer = bytearray(capacity)
        self._address = ctypes.addressof((ctypes.c_char * capacity).from_buffer(self._buffer))
        self._remote = (Iovec * MAX_RANGES)()

    def read(self, ranges: Sequence[tuple[int, int]]) -> memoryview:
        """The bytes of [start, end) ranges, one behind the other; valid until the next call.

        At most MAX_RANGES ranges and `capacity` bytes. May wait for whoever serves the faults.
        Errors: OSError: ESRCH when the process is gone, EFAULT where it has no memory.
        """
        total = 0
        for slot, (start, end) in enumerate(ranges):
            self._remote[slot].base, self._remote[slot].length = start, end - start
            total += end - start
        assert total <= self.capacity
        local = Iovec(self._address, total)
        count = check(_readv(self.pid, local, 1, self._remote, len(ranges), 0), "process_vm_readv")
        if count != total:  # it stops at the first page that can't be read
            raise OSError(errno.EFAULT, f"only {count} of {total} bytes could be read")
        return memoryview(self._buffer)[:total]
