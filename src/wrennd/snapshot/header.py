"""The header of a snapshot: one byte for each page of the guest, saying which file holds it.

Pure bytes, and no imports but `struct` and `zlib`: the pager reads headers too, and pays for each
import. The format is in docs/snapshot-format.md. Page p lies at offset p * PAGE_SIZE of its file,
so the source of a page is all there is to know.
"""

import struct
import zlib
from collections.abc import Iterator

PAGE_SIZE = 4096
ZERO = 0  # the source of a page that is all zero
MAX_BUILDS = 255
MAX_PAGES = 1 << 28  # 1 TiB

_MAGIC = b"WRENNHDR"
_VERSION = 1
_HEAD = struct.Struct("<8sHHIQII")
_CHECKSUM_AT = 28
_BUILD_SIZE = 16
_SOURCES = tuple(bytes([source]) for source in range(MAX_BUILDS + 1))
_FIRST_LOOK = 64  # pages; a window of the pager's
_LONGEST_LOOK = 1 << 16


class HeaderError(ValueError):
    """These are not the bytes, or the parts, of a header."""


def memfile_name(build: str) -> str:
    return f"memfile.{build}"


class Header:
    """Which build holds which page. Never changes.

    builds: 32 hexadecimal digits each, all different, each used by some page.
    table: one byte a page; `table[page]` is its source: ZERO, or i for `builds[i - 1]`.
    """

    __slots__ = ("builds", "table")

    def __init__(self, builds: tuple[str, ...], table: bytes) -> None:
        """Errors: HeaderError."""
        self.builds = builds
        self.table = table
        _check(builds, table)

    @classmethod
    def zero(cls, pages: int) -> "Header":
        """The memory of a VM that was never started."""
        return cls((), bytes(pages))

    @property
    def pages(self) -> int:
        return len(self.table)

    @property
    def size(self) -> int:
        """The guest's memory in bytes, which is also the length of each of its files."""
        return len(self.table) * PAGE_SIZE

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Header):
            return NotImplemented
        return self.builds == other.builds and self.table == other.table

    def __hash__(self) -> int:
        return hash((self.builds, self.table))

    def __repr__(self) -> str:
        return f"Header({self.pages} pages, builds {', '.join(self.builds) or 'none'})"

    def run_end(self, page: int, stop: int) -> int:
        """Where the run of pages with the source of `page` ends, at most `stop` (> page)."""
        source = _SOURCES[self.table[page]]
        look = _FIRST_LOOK
        while page < stop:
            # strip is the one search for "anything but this byte" that bytes have.
            seen = self.table[page : min(page + look, stop)]
            others = len(seen.lstrip(source))
            page += len(seen) - others
            if others:
                break
            look = min(look * 4, _LONGEST_LOOK)
        return page

    def runs(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int, int]]:
        """The pages [start, stop) as (start, stop, source), each as long as it can be."""
        stop = self.pages if stop is None else stop
        while start < stop:
            end = self.run_end(start, stop)
            yield start, end, self.table[start]
            start = end

    def encode(self) -> bytes:
        packed = zlib.compress(self.table, 1)  # level 3 takes twice as long and saves a tenth
        head = _HEAD.pack(_MAGIC, _VERSION, len(self.builds), PAGE_SIZE, self.pages, len(packed), 0)
        rest = b"".join([*(bytes.fromhex(build) for build in self.builds), packed])
        checksum = zlib.crc32(rest, zlib.crc32(head[:_CHECKSUM_AT]))
        return head[:_CHECKSUM_AT] + struct.pack("<I", checksum) + rest

    @classmethod
    def decode(cls, data: bytes) -> "Header":
        """Errors: HeaderError says what is wrong with these bytes."""
        if len(data) < _HEAD.size:
            raise HeaderError(f"a header of {len(data)} bytes is too short")
        magic, version, builds, page_size, pages, packed, checksum = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise HeaderError("these are not the bytes of a header")
        if version != _VERSION:
            raise HeaderError(f"this header is of version {version}, not {_VERSION}")
        if page_size != PAGE_SIZE:
            raise HeaderError(f"this header has pages of {page_size} bytes, not {PAGE_SIZE}")
        if builds > MAX_BUILDS or not 0 < pages <= MAX_PAGES:
            raise HeaderError(f"a header can't have {pages} pages and {builds} builds")
        table_at = _HEAD.size + builds * _BUILD_SIZE
        if len(data) != table_at + packed:
            raise HeaderError(f"a header of {table_at + packed} bytes has {len(data)}")
        if checksum != zlib.crc32(data[_HEAD.size :], zlib.crc32(data[:_CHECKSUM_AT])):
            raise HeaderError("the header's checksum is wrong")
        names = tuple(
            data[at : at + _BUILD_SIZE].hex() for at in range(_HEAD.size, table_at, _BUILD_SIZE)
        )
        return cls(names, _unpack(data[table_at:], pages))


def _unpack(packed: bytes, pages: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        table = stream.decompress(packed, pages + 1)
    except zlib.error as error:
        raise HeaderError(f"the header's table can't be unpacked: {error}") from error
    if len(table) != pages or not stream.eof or stream.unused_data:
        raise HeaderError(f"the header's table is not one of {pages} pages")
    return table


def _check(builds: tuple[str, ...], table: bytes) -> None:
    if len(builds) > MAX_BUILDS or not 0 < len(table) <= MAX_PAGES:
        raise HeaderError(f"a header can't have {len(table)} pages and {len(builds)} builds")
    if len(set(builds)) != len(builds):
        raise HeaderError("the header names a build twice")
    for build in builds:
        _check_build(build)
    if table.translate(None, bytes(range(len(builds) + 1))):  # delete what is allowed
        raise HeaderError(f"the header's table names more than its {len(builds)} builds")
    for source, build in enumerate(builds, start=1):
        if source not in table:
            raise HeaderError(f"no page uses build {build} of the header")


def _check_build(build: str) -> None:
    if len(build) != 2 * _BUILD_SIZE or build.strip("0123456789abcdef"):
        raise HeaderError(f"{build!r} is not a build")
