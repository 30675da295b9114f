"""A gzip body, unpacked as it comes, in pieces of bounded size. Pure."""

from __future__ import annotations

import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES = 64 << 10
_GZIP = 16 + zlib.MAX_WBITS


class Gunzip:
    """Errors: ValueError for what is no gzip, or not all of it."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._is_inside = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` unpacks to; a file may have several members, one behind the other."""
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
            self._is_inside = True
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise ValueError(f"the body is not gzip: {error}") from None
            if piece:
                yield piece
            if self._member.eof:
                self._is_inside = False
                data = self._member.unused_data
            else:
                data = self._member.unconsumed_tail

    def close(self) -> None:
        if self._is_inside or not self._member.eof:
            raise ValueError("the gzip body ended too early")
