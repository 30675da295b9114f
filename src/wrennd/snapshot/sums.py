"""The checksums of a guest's pages, whichever files hold them. Pure bytes; see
docs/snapshot-format.md.
"""

import struct
import sys
import zlib
from array import array

from wrennd.snapshot.header import MAX_PAGES, PAGE_SIZE

_MAGIC = b"WRENNSUM"
_VERSION = 1
_HEAD = struct.Struct("<8sHHIQII")
_CHECKSUM_AT = 24
ZERO_SUM = zlib.crc32(bytes(PAGE_SIZE))


class SumsError(ValueError):
    """These are not the bytes of page checksums."""


def zero_sums(pages: int) -> "array[int]":
    """The checksums of memory that is all zero."""
    return array("I", (ZERO_SUM,)) * pages


def encode_sums(values: "array[int]") -> bytes:
    """The file of these checksums, one for each page."""
    body = _little(values).tobytes()
    head = _HEAD.pack(_MAGIC, _VERSION, 0, PAGE_SIZE, len(values), 0, 0)
    checksum = zlib.crc32(body, zlib.crc32(head[:_CHECKSUM_AT]))
    return head[:_CHECKSUM_AT] + struct.pack("<II", checksum, 0) + body


def decode_sums(data: bytes) -> "array[int]":
    """Errors: SumsError says what is wrong with these bytes."""
    if len(data) < _HEAD.size:
        raise SumsError(f"page checksums of {len(data)} bytes are too short")
    magic, version, filler, page_size, pages, checksum, rest = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise SumsError("these are not the bytes of page checksums")
    if version != _VERSION:
        raise SumsError(f"these page checksums are of version {version}, not {_VERSION}")
    if page_size != PAGE_SIZE or not 0 < pages <= MAX_PAGES or filler or rest:
        raise SumsError(f"there can't be checksums of {pages} pages of {page_size} bytes")
    if len(data) != _HEAD.size + 4 * pages:
        raise SumsError(f"checksums of {pages} pages have {len(data)} bytes")
    body = memoryview(data)[_HEAD.size :]
    if checksum != zlib.crc32(body, zlib.crc32(data[:_CHECKSUM_AT])):
        raise SumsError("the checksum of the page checksums is wrong")
    values = array("I")
    values.frombytes(body)
    return _little(values)


def _little(values: "array[int]") -> "array[int]":
    """Little-endian from the machine's order, or back."""
    if sys.byteorder == "little":
        return values
    swapped = array("I", values)
    swapped.byteswap()
    return swapped
