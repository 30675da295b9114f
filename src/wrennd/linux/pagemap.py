"""What the kernel knows of another process's pages: /proc/PID/pagemap (fs/proc/task_mmu.c).

Ranges are [start, end) in bytes of that process's addresses.
"""

import ctypes
import errno
import fcntl
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

PAGE = 4096
PAGEMAP_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg), Linux 6.7

PAGE_IS_WRITTEN = 1 << 1
PAGE_IS_FILE = 1 << 2
PAGE_IS_PRESENT = 1 << 3
PAGE_IS_SWAPPED = 1 << 4
PAGE_IS_PFNZERO = 1 << 5

PM_SCAN_WP_MATCHING = 1
PM_SCAN_CHECK_WPASYNC = 2

Range = tuple[int, int]

_REGIONS = 4096  # a call; 96 KiB
_REGION_WORDS = 3
_ENTRY = 8
_ENTRIES = 1 << 16  # a read; 256 MiB of memory
# The top byte of an entry: bit 7 present, 6 swapped, 5 of a file or shared. To "1" where the page
# is the process's own.
_OWN = bytes(0x31 if top & 0xC0 and not top & 0x20 else 0x30 for top in range(256))


class PmScanArg(ctypes.Structure):
    """struct pm_scan_arg, linux/fs.h."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("size", "flags", "start", "end", "walk_end", "vec", "vec_len", "max_pages"),
            *("category_inverted", "category_mask", "category_anyof_mask", "return_mask"),
        )
    )


class PageRegion(ctypes.Structure):
    """struct page_region, linux/fs.h."""

    _fields_ = (
        ("start", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("categories", ctypes.c_uint64),
    )


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Pages in all categories of `all_of`, in none of `none_of`, in at least one of `any_of`."""

    all_of: int = 0
    none_of: int = 0
    any_of: int = 0


def open_pagemap(pid: int) -> int:
    """Stays that process's even when its pid becomes another's. Errors: OSError."""
    return os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)


def scan(fd: int, within: Range, wanted: Wanted, flags: int = 0) -> list[Range]:
    """The ranges of pages that are wanted, joined; `flags` say what becomes of them.

    Errors: OSError: ENOTTY before Linux 6.7, EPERM with PM_SCAN_CHECK_WPASYNC when not all of the
    memory is registered for it, ESRCH when the process is gone.
    """
    regions = (PageRegion * _REGIONS)()
    arg = PmScanArg(
        size=ctypes.sizeof(PmScanArg),
        flags=flags,
        start=within[0],
        end=within[1],
        vec=ctypes.addressof(regions),
        vec_len=_REGIONS,
        category_inverted=wanted.none_of,
        category_mask=wanted.all_of | wanted.none_of,
        category_anyof_mask=wanted.any_of,
        return_mask=wanted.all_of or wanted.any_of,
    )
    found: list[Range] = []
    while arg.start < within[1]:
        count = fcntl.ioctl(fd, PAGEMAP_SCAN, arg)
        words = memoryview(regions).cast("B").cast("Q")[: count * _REGION_WORDS].tolist()
        _join(found, zip(words[::_REGION_WORDS], words[1::_REGION_WORDS], strict=True))
        arg.start = arg.walk_end
    # A process that ended has no pages, and the scan calls that success.
    _entries(fd, within[0], 1)
    return found


def has_scan() -> bool:
    """Whether this kernel has PAGEMAP_SCAN: Linux 6.7 and later. Errors: OSError."""
    fd = open_pagemap(os.getpid())
    try:
        scan(fd, (0, PAGE), Wanted(any_of=PAGE_IS_PRESENT))
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
        return False
    finally:
        os.close(fd)
    return True


def own_pages(fd: int, within: Range) -> list[Range]:
    """The ranges of pages, present or swapped out, that are nobody's but that process's: not of a
    file, not shared. Works on every kernel. Errors: OSError."""
    found: list[Range] = []
    start, end = within
    while start < end:
        count = min(_ENTRIES, (end - start) // PAGE)
        entries = _entries(fd, start, count)
        tops = entries[_ENTRY - 1 :: _ENTRY].translate(_OWN)
        runs = re.finditer(rb"1+", tops)
        _join(found, ((start + run.start() * PAGE, start + run.end() * PAGE) for run in runs))
        start += count * PAGE
    return found


def _entries(fd: int, start: int, count: int) -> bytes:
    entries = os.pread(fd, count * _ENTRY, start // PAGE * _ENTRY)
    if len(entries) != count * _ENTRY:
        raise ProcessLookupError(errno.ESRCH, "the process has ended")
    return entries


def _join(found: list[Range], ranges: Iterable[Range]) -> None:
    """Append; a range that begins where the last one ends makes it longer."""
    for start, end in ranges:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
