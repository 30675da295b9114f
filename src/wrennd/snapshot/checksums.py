"""Checksums of whole files, as the manifest has them (docs/snapshot-format.md)."""

import errno
import hashlib
import os
import zlib
from array import array
from pathlib import Path

from wrennd.linux.files import data_runs

PAGES = "pages"  # memory: each page is in `sums`
_BLOCK = 1 << 20
_HOLE = zlib.crc32(bytes(_BLOCK))


def of_bytes(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def of_file(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def as_given(path: Path, checksum: str) -> str:
    """The file's, of the kind of `checksum`."""
    return of_disk(path) if checksum.startswith("blocks:") else of_file(path)


def of_disk(path: Path) -> str:
    """Of a large sparse file, holes not read: a CRC-32 of each MiB, and SHA-256 over those.

    Where the file's holes are makes no difference, so a copy of other sparseness has the same.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        sums = array("I", (_HOLE,)) * -(-size // _BLOCK)
        buffer = memoryview(bytearray(_BLOCK))
        done = 0  # blocks; a block may hold several runs
        for start, end in data_runs(fd, size):
            for block in range(max(done, start // _BLOCK), -(-end // _BLOCK)):
                sums[block] = zlib.crc32(_read(fd, buffer, block * _BLOCK, size))
                done = block + 1
    finally:
        os.close(fd)
    return f"blocks:{hashlib.sha256(sums.tobytes()).hexdigest()}"


def _read(fd: int, buffer: memoryview, at: int, size: int) -> memoryview:
    """The block at `at`, the last one padded with zeros to a whole one."""
    wanted = min(len(buffer), size - at)
    if read_into(fd, buffer[:wanted], at) < wanted:
        raise OSError(errno.EIO, "the file became shorter while it was read")
    buffer[wanted:] = bytes(len(buffer) - wanted)
    return buffer


def read_into(fd: int, buffer: memoryview, at: int) -> int:
    """Fill `buffer` from the file at `at`; fewer bytes than it holds only at the file's end."""
    done = 0
    while done < len(buffer):
        count = os.preadv(fd, [buffer[done:]], at + done)
        if count == 0:
            break
        done += count
    return done
