"""The file of a dm disk: what it says of itself, and what in it differs from its base.

Three parts, all in multiples of 4 KiB (docs/storage.md): a header of ours; the area that
device-mapper's snapshot target keeps (its persistent format, version 1, linux
drivers/md/dm-snap-persistent.c); and the tail, by which the disk is longer than its base. Reading
the kernel's part makes flattening a matter of files, with or without device-mapper.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wrennd.linux import files
from wrennd.linux.files import data_runs

HEADER_BYTES = 4096
CHUNK = 4096  # of the snapshot target: what is copied when its first byte is written
SECTOR = 512
MAX_BYTES = 1 << 44  # 16 TiB: what ext4 can hold in a file
_MAGIC = b"WRENNCOW"
_VERSION = 1
_HEAD = struct.Struct("<8sHHIQQ16s")  # magic, version, 0, CRC-32, base's size, tail, base's id
_CRC_AT, _CRC = 12, struct.Struct("<I")

# The kernel's: magic "SnAp", valid, version, chunk size in sectors; then areas of exceptions.
_STORE = struct.Struct("<IIII")
_STORE_MAGIC, _STORE_VERSION = 0x70416E53, 1
_EXCEPTION = struct.Struct("<QQ")  # chunk of the origin, chunk of the store; 0 in the store: end
PER_AREA = CHUNK // _EXCEPTION.size
_SPARE_CHUNKS = 16


class CowError(ValueError):
    """These are not the bytes of a dm disk, or not of one that is whole."""


@dataclass(frozen=True, kw_only=True)
class CowHeader:
    """What a dm disk is. Sizes in bytes; base_id: 32 hex digits (`base_id`)."""

    base_id: str
    base_bytes: int
    tail_bytes: int = 0

    def __post_init__(self) -> None:
        sizes = (self.base_bytes, self.tail_bytes)
        if self.base_bytes <= 0 or any(size % CHUNK or size < 0 for size in sizes):
            raise CowError(f"a base of {sizes[0]} bytes and a tail of {sizes[1]} are no disk")
        if self.disk_bytes > MAX_BYTES:
            raise CowError(f"a disk of {self.disk_bytes} bytes is too large")

    @property
    def disk_bytes(self) -> int:
        return self.base_bytes + self.tail_bytes

    @property
    def area_bytes(self) -> int:
        """Enough to write every chunk of the base, with all metadata for that.

        One chunk for the store's header; one for each area of exceptions, and for the next one,
        which the kernel clears when an area is full; one for each chunk of the base.
        """
        chunks = self.base_bytes // CHUNK
        return (1 + chunks // PER_AREA + 1 + chunks + _SPARE_CHUNKS) * CHUNK

    @property
    def tail_at(self) -> int:
        return HEADER_BYTES + self.area_bytes

    @property
    def file_bytes(self) -> int:
        return self.tail_at + self.tail_bytes

    @property
    def base_name(self) -> str:
        """Of the hard link to the base, in the directory of the disk."""
        return f"{BASE_PREFIX}{self.base_id}"

    def encode(self) -> bytes:
        values = (self.base_bytes, self.tail_bytes, bytes.fromhex(self.base_id))
        head = bytearray(_HEAD.pack(_MAGIC, _VERSION, 0, 0, *values).ljust(HEADER_BYTES, b"\0"))
        _CRC.pack_into(head, _CRC_AT, zlib.crc32(head))
        return bytes(head)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Errors: CowError."""
        if len(data) != HEADER_BYTES or data[: len(_MAGIC)] != _MAGIC:
            raise CowError("it does not begin as a dm disk does")
        _, version, _, checksum, base_bytes, tail_bytes, base_id = _HEAD.unpack_from(data)
        if version != _VERSION:
            raise CowError(f"it is of version {version}, and only {_VERSION} is known")
        blank = data[:_CRC_AT] + bytes(_CRC.size) + data[_CRC_AT + _CRC.size :]
        if zlib.crc32(blank) != checksum:
            raise CowError("the checksum of its header is wrong")
        return cls(base_id=base_id.hex(), base_bytes=base_bytes, tail_bytes=tail_bytes)


BASE_PREFIX = "base."


def base_id(fd: int) -> str:
    """What tells a base from others: its length and its first 4 KiB, which hold an ext4's UUID,
    its times and its counts of what is free. Reading all of it at each start would take longer
    than the start; `wrenn snapshot verify` does."""
    found = hashlib.sha256(os.pread(fd, CHUNK, 0))
    found.update(struct.pack("<Q", os.fstat(fd).st_size))
    return found.hexdigest()[:32]


def is_cow(fd: int) -> bool:
    """Whether a disk's file is a dm disk's; else it is a filesystem, or whatever its guest made."""
    return os.pread(fd, len(_MAGIC), 0) == _MAGIC


def read_header(fd: int) -> CowHeader:
    """Errors: CowError, also when the file is shorter than it should be."""
    header = CowHeader.decode(os.pread(fd, HEADER_BYTES, 0))
    found = os.fstat(fd).st_size
    if found < header.file_bytes:
        raise CowError(f"it has {found} bytes instead of {header.file_bytes}")
    return header


def exceptions(fd: int, header: CowHeader) -> Iterator[tuple[int, int, int]]:
    """Runs (chunk of the base, chunk of the area, how many) that were written, as they came.

    Errors: CowError when the area says what can't be, or was given up by the kernel.
    """
    magic, valid, version, sectors = _STORE.unpack(_read(fd, 0, _STORE.size))
    if magic == 0:
        return  # the kernel has not had it yet
    if (magic, version, sectors * SECTOR) != (_STORE_MAGIC, _STORE_VERSION, CHUNK):
        raise CowError("its area is not as device-mapper keeps it")
    if not valid:
        raise CowError("device-mapper has given it up: a write of its data failed")
    chunks, limit = header.base_bytes // CHUNK, header.area_bytes // CHUNK
    old = new = count = 0
    for at, to in _entries(fd, limit):
        if at >= chunks or to >= limit:
            raise CowError(f"its area maps chunk {at} of {chunks} to {to} of {limit}")
        if count and (at, to) == (old + count, new + count):
            count += 1
            continue
        if count:
            yield old, new, count
        old, new, count = at, to, 1
    if count:
        yield old, new, count


def check_valid(fd: int) -> None:
    """Errors: CowError when the kernel has given the area up."""
    for _ in exceptions(fd, read_header(fd)):
        return


def _entries(fd: int, limit: int) -> Iterator[tuple[int, int]]:
    area = 1
    while area < limit:
        for old, new in _EXCEPTION.iter_unpack(_read(fd, area * CHUNK, CHUNK)):
            if new == 0:
                return
            yield old, new
        area += 1 + PER_AREA
    raise CowError("its area has no end")


def _read(fd: int, at: int, size: int) -> bytes:
    """Of the kernel's part."""
    data = os.pread(fd, size, HEADER_BYTES + at)
    if len(data) < size:
        raise CowError("its area ends too early")
    return data


def flatten(fd: int, base: int, target: int) -> None:
    """Fill the empty file `target` with the whole disk. Errors: CowError; OSError.

    What the guest discarded, and what it wrote as zeros if the kernel kept a hole for it, are
    holes.
    """
    header = read_header(fd)
    files.clone_or_copy(base, target)
    os.ftruncate(target, header.disk_bytes)
    for old, new, count in exceptions(fd, header):
        _transfer(fd, HEADER_BYTES + new * CHUNK, target, old * CHUNK, count * CHUNK)
    _transfer(fd, header.tail_at, target, header.base_bytes, header.tail_bytes)


def _transfer(source: int, at: int, target: int, to: int, length: int) -> None:
    """Make [to, to + length) of the target what [at, at + length) of the source is, holes too."""
    if not length:
        return
    files.punch_hole(target, to, length)
    for start, end in data_runs(source, at + length, start=at):
        files.copy_range(source, target, start, to + start - at, end - start)


def write_new(fd: int, header: CowHeader) -> None:
    """Make an empty file a disk that is as its base, zeros behind that. Errors: OSError."""
    os.pwrite(fd, header.encode(), 0)
    os.ftruncate(fd, header.file_bytes)


def grow(fd: int, disk_bytes: int) -> None:
    """Lengthen a disk that nobody uses; nothing happens when it is as long. Errors: CowError."""
    header = read_header(fd)
    if disk_bytes > header.disk_bytes:
        tail = disk_bytes - header.base_bytes
        write_new(
            fd,
            CowHeader(base_id=header.base_id, base_bytes=header.base_bytes, tail_bytes=tail),
        )


def base_names(directory: Path) -> Iterator[str]:
    """The links to bases in a directory."""
    return (path.name for path in directory.glob(f"{BASE_PREFIX}*"))
