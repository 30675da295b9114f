import ctypes
import mmap
import os
import re

import pytest

from wrennd.linux import pagemap, uffd
from wrennd.linux.foreign_memory import Reader
from wrennd.linux.pagemap import PAGE, PageRegion, PmScanArg, Wanted


@pytest.fixture
def memory():
    """64 pages of this process; 2, 3 and 40 were written."""
    with mmap.mmap(-1, 64 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as made:
        for page in (2, 3, 40):
            made[page * PAGE] = page
        yield made


@pytest.fixture
def where(memory):
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return start, start + 64 * PAGE


@pytest.fixture
def own_pagemap():
    fd = pagemap.open_pagemap(os.getpid())
    yield fd
    os.close(fd)


def test_structures_are_as_large_as_the_kernels():
    assert ctypes.sizeof(PmScanArg) == 96
    assert ctypes.sizeof(PageRegion) == 24
    assert pagemap.PAGEMAP_SCAN >> 16 & 0x3FFF == 96
    assert uffd.UFFDIO_API >> 16 & 0x3FFF == 24
    assert uffd.UFFDIO_REGISTER >> 16 & 0x3FFF == 32


def test_own_pages_are_those_that_were_written(own_pagemap, where):
    found = pagemap.own_pages(own_pagemap, where)
    start = where[0]
    assert found == [
        (start + 2 * PAGE, start + 4 * PAGE),
        (start + 40 * PAGE, start + 41 * PAGE),
    ]


def test_the_scan_finds_the_same(own_pagemap, where):
    wanted = Wanted(
        none_of=pagemap.PAGE_IS_PFNZERO,
        any_of=pagemap.PAGE_IS_PRESENT | pagemap.PAGE_IS_SWAPPED,
    )
    if kernel_version() < (6, 7):
        with pytest.raises(OSError, match="Inappropriate ioctl"):
            pagemap.scan(own_pagemap, where, wanted)
    else:
        assert pagemap.scan(own_pagemap, where, wanted) == pagemap.own_pages(own_pagemap, where)


def kernel_version():
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])


def test_several_ranges_are_read_at_once(where):
    start = where[0]
    ranges = [(start + 2 * PAGE, start + 2 * PAGE + 1), (start + 40 * PAGE, start + 40 * PAGE + 2)]
    assert bytes(Reader(os.getpid(), 8).read(ranges)) == bytes([2, 40, 0])


def test_where_there_is_no_memory():
    with pytest.raises(OSError, match="Bad address"):
        Reader(os.getpid(), 8).read([(8, 16)])


def test_whether_pages_can_be_scanned_is_a_matter_of_the_kernels_version():
    version = tuple(int(number) for number in re.findall(r"[0-9]+", os.uname().release)[:2])
    assert pagemap.has_scan() == (version >= (6, 7))
