"""Swap for the host, for as long as a test takes, and what was put there."""

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wrennd.linux import process

MADV_PAGEOUT = 21
SYS_PROCESS_MADVISE = 440


@contextmanager
def swap_space(mib: int) -> Iterator[None]:
    """Not on a tmpfs, as /tmp may be."""
    path = Path(f"/var/tmp/wrenn-test-swap.{os.getpid()}")
    try:
        with path.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            for _ in range(mib):
                file.write(bytes(1 << 20))
        process.run(["mkswap", path], timeout_s=60)
        process.run(["swapon", path], timeout_s=60)
        try:
            yield
        finally:
            process.run(["swapoff", path], timeout_s=120)
    finally:
        path.unlink(missing_ok=True)


def swapped_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmSwap")).split()[1])


def page_out(pid: int, start: int, end: int) -> None:
    """Ask the kernel to swap out what another process has there. Errors: OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        while start < end:
            ranges = ctypes.create_string_buffer(struct.pack("QQ", start, end - start))
            done = libc.syscall(
                SYS_PROCESS_MADVISE, pidfd, ranges, ctypes.c_size_t(1), MADV_PAGEOUT, 0
            )
            if done <= 0:
                raise OSError(ctypes.get_errno(), "process_madvise")
            assert done % mmap.PAGESIZE == 0
            start += done
    finally:
        os.close(pidfd)


def mapping_of_size(pid: int, size: int) -> tuple[int, int]:
    """The one mapping of a process that is as long as that, and may be written to: first, end."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        where, mode = line.split()[:2]
        start, end = (int(part, 16) for part in where.split("-"))
        if mode.startswith("rw") and end - start == size:
            found.append((start, end))
    assert len(found) == 1, found
    return found[0]
