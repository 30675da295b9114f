"""The recorded working set: which pages a guest touched. Pure; the file is in docs/memory.md.

What is prefetched never faults, so whether it is still needed can't be seen. Each time one window
in TURNS is therefore left out, in turn: if the guest faults in it, all that is recorded of it
stays; if not, it is forgotten.
"""

import struct
import zlib
from dataclasses import dataclass

TURNS = 8
WINDOW_PAGES = 64
_MAGIC = b"WRNTOUCH"
_VERSION = 1
_HEAD = struct.Struct("<8sIIQQ")  # magic, version, CRC-32 of what follows it, turn, pages
_SUMMED_FROM = 16
# For each bit: a byte to 1 where the bit is set in it, else 0.
_BIT = tuple(bytes(value >> bit & 1 for value in range(256)) for bit in range(8))


class TouchedError(ValueError):
    """Not a recorded working set of such a guest; the text says why."""


@dataclass(frozen=True)
class WorkingSet:
    """flags: for each page 1 if it is in the set, else 0. turn: how often it was recorded."""

    flags: bytes
    turn: int = 0

    @classmethod
    def empty(cls, pages: int) -> "WorkingSet":
        return cls(bytes(pages))

    def to_prefetch(self) -> bytes:
        """The set without the windows whose turn it is to prove themselves."""
        flags = bytearray(self.flags)
        for low, high in self._on_trial():
            flags[low:high] = bytes(high - low)
        return bytes(flags)

    def after(self, faulted: bytes) -> "WorkingSet":
        """The set for next time, when the guest had to fault in the pages of `faulted`."""
        kept = bytearray(self.flags)
        for low, high in self._on_trial():
            if 1 not in faulted[low:high]:
                kept[low:high] = bytes(high - low)
        both = int.from_bytes(kept, "little") | int.from_bytes(faulted, "little")
        return WorkingSet(both.to_bytes(len(kept), "little"), self.turn + 1)

    def _on_trial(self) -> list[tuple[int, int]]:
        pages = len(self.flags)
        step = WINDOW_PAGES * TURNS
        first = WINDOW_PAGES * (self.turn % TURNS)
        return [(low, min(low + WINDOW_PAGES, pages)) for low in range(first, pages, step)]

    def encode(self) -> bytes:
        padded = self.flags + bytes(-len(self.flags) % 8)
        bits = 0
        for bit in range(8):
            bits |= int.from_bytes(padded[bit::8], "little") << bit
        bitmap = bits.to_bytes(len(padded) // 8, "little")
        head = _HEAD.pack(_MAGIC, _VERSION, 0, self.turn, len(self.flags))
        checksum = zlib.crc32(head[_SUMMED_FROM:] + bitmap)
        return _HEAD.pack(_MAGIC, _VERSION, checksum, self.turn, len(self.flags)) + bitmap

    @classmethod
    def decode(cls, data: bytes, pages: int) -> "WorkingSet":
        """For a guest of so many pages. Errors: TouchedError."""
        size = _HEAD.size + (pages + 7) // 8
        if len(data) != size:
            raise TouchedError(f"{len(data)} bytes instead of {size} for {pages} pages")
        magic, version, checksum, turn, count = _HEAD.unpack_from(data)
        if (magic, version) != (_MAGIC, _VERSION):
            raise TouchedError(f"not a working set of version {_VERSION}")
        if count != pages or zlib.crc32(data[_SUMMED_FROM:]) != checksum:
            raise TouchedError("its checksum or number of pages is wrong")
        bitmap = data[_HEAD.size :]
        flags = bytearray(len(bitmap) * 8)
        for bit, table in enumerate(_BIT):
            flags[bit::8] = bitmap.translate(table)
        return cls(bytes(flags[:pages]), turn)
