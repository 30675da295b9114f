"""The recorded working set as a file: which pages a guest touched. Pure; docs/memory.md.

In memory a set is one byte for each page, 1 or 0; in the file it is one bit.
"""

import struct
import zlib

_MAGIC = b"WRNTOUCH"
_VERSION = 1
_HEAD = struct.Struct("<8sIIQ")  # magic, version, CRC-32 of the bitmap, pages
# For each bit: a byte to 1 where the bit is set in it, else 0.
_BIT = tuple(bytes(value >> bit & 1 for value in range(256)) for bit in range(8))


class TouchedError(ValueError):
    """Not a recorded working set of such a guest; the text says why."""


def size(pages: int) -> int:
    """How long the file for a guest of so many pages is."""
    return _HEAD.size + (pages + 7) // 8


def encode(flags: bytes | bytearray) -> bytes:
    """The file for one flag (0 or 1) for each page."""
    padded = bytes(flags) + bytes(-len(flags) % 8)
    bits = 0
    for bit in range(8):
        bits |= int.from_bytes(padded[bit::8], "little") << bit
    bitmap = bits.to_bytes(len(padded) // 8, "little")
    return _HEAD.pack(_MAGIC, _VERSION, zlib.crc32(bitmap), len(flags)) + bitmap


def decode(data: bytes, pages: int) -> bytearray:
    """One flag for each of the guest's pages. Errors: TouchedError."""
    if len(data) != size(pages):
        raise TouchedError(f"{len(data)} bytes instead of {size(pages)} for {pages} pages")
    magic, version, checksum, count = _HEAD.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION):
        raise TouchedError(f"not a working set of version {_VERSION}")
    bitmap = data[_HEAD.size :]
    if count != pages or zlib.crc32(bitmap) != checksum:
        raise TouchedError("its checksum or number of pages is wrong")
    flags = bytearray(len(bitmap) * 8)
    for bit, table in enumerate(_BIT):
        flags[bit::8] = bitmap.translate(table)
    del flags[pages:]
    return flags
