"""The guest's memory as the snapshot holds it: the header's table over mappings of its files."""

import ctypes
import mmap
import os
from collections.abc import Sequence

from wrennd.pager.abi import PAGE_SHIFT, PAGE_SIZE
from wrennd.snapshot.header import Header, HeaderError

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_MAP_FAILED = ctypes.c_void_p(-1).value


class ImageError(Exception):
    """The snapshot can't be served; the text says which part is wrong."""


class Image:
    """Where each page's content lies. The mappings are kept until the process ends.

    table: for each page its source; 0 is zeros. addresses: for each source the address at which
    page 0 of its file would lie, in this process. Reading there is the kernel's business only: a
    file that lost its end is an error of the ioctl then, and no SIGBUS. zeros_address: of a page
    of zeros.
    """

    def __init__(self, table: bytes, addresses: Sequence[int]) -> None:
        self.table = table
        self.addresses = tuple(addresses)
        self.zeros_address = _map(-1, PAGE_SIZE)

    @property
    def pages(self) -> int:
        return len(self.table)


def read_ahead(image: Image, files: Sequence[int], wanted: bytes) -> None:
    """Have the kernel read what will be prefetched, if it is not in its cache yet. May take long.

    One run of equal source is one request: between them lie other files' pages, or holes.
    """
    low = wanted.find(1)
    while low >= 0:
        high = wanted.find(0, low)
        high = len(wanted) if high < 0 else high
        while low < high:
            sources = image.table[low:high]
            count = len(sources) - len(sources.lstrip(sources[:1]))
            if sources[0]:
                at, size = low << PAGE_SHIFT, count << PAGE_SHIFT
                os.posix_fadvise(files[sources[0] - 1], at, size, os.POSIX_FADV_WILLNEED)
            low += count
        low = wanted.find(1, high)


def load(header: bytes, files: Sequence[int]) -> Image:
    """Map `files`, one for each build of the header, in its order. They may be closed then.

    Errors: ImageError.
    """
    try:
        found = Header.decode(header)
    except HeaderError as error:
        raise ImageError(f"the snapshot's header is damaged: {error}") from error
    if len(files) != len(found.builds):
        raise ImageError(f"the header names {len(found.builds)} builds, {len(files)} were given")
    if found.pages == 0:
        raise ImageError("the header says that the guest has no memory")
    addresses = [0]
    for build, file in zip(found.builds, files, strict=True):
        try:
            addresses.append(_map_whole(file, found.pages << PAGE_SHIFT))
        except OSError as error:
            raise ImageError(f"memfile.{build} can't be mapped: {error}") from error
    return Image(found.table, addresses)


def _map_whole(file: int, size: int) -> int:
    length = os.lseek(file, 0, os.SEEK_END)
    if length < size:
        raise OSError(f"it has {length} bytes, the guest's memory {size}")
    return _map(file, size)


def _map(file: int, size: int) -> int:
    """The address of a private, read-only mapping; of zeros when `file` is -1.

    Not the mmap module: it gives the address of writable mappings only.
    """
    flags = mmap.MAP_PRIVATE | (mmap.MAP_ANONYMOUS if file < 0 else 0)
    address = _libc.mmap(None, size, mmap.PROT_READ, flags, file, 0)
    if address == _MAP_FAILED:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return int(address)
