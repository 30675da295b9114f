"""Writes an archive to a stream: never back, in memory that does not grow with what is written.

Pieces are compressed in as many threads as there are CPUs (zlib lets others run meanwhile) and
written in their order.
"""

import errno
import hashlib
import os
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from wrennd.archive.document import PIECE_BYTES, Document, Kind, Member, Piece, pack
from wrennd.linux.files import data_runs

_THREADS = max(2, os.cpu_count() or 1)
_AHEAD = 2 * _THREADS  # pieces in memory
_ZEROS = bytes(PIECE_BYTES)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A member and, of a FILE, where its content is: a file that does not change meanwhile, or its
    descriptor, which stays the caller's."""

    member: Member
    file: Path | int | None = None


@dataclass(frozen=True, kw_only=True)
class Written:
    """How long the archive is, and how much content is in it."""

    bytes: int
    data_bytes: int


def write(out: BinaryIO, kind: str, sources: Sequence[Source], about: Mapping[str, str]) -> Written:
    """Errors: OSError, of the stream or of a file; EIO when a file became shorter."""
    document = Document(
        kind=kind,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        about=about,
        members=tuple(source.member for source in sources),
        data_bytes=sum(map(_data_bytes, sources)),
    )
    stream = _Summed(out)
    stream.write(document.encode())
    pieces = 0
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="pack") as pool:
        for head, packed in _packed(pool, sources):
            stream.write(head)
            stream.write(packed)
            pieces += 1
    stream.write(Piece.end(pieces).encode())
    stream.finish()
    return Written(bytes=stream.count, data_bytes=document.data_bytes)


class _Summed:
    """A stream that knows the checksum of what went into it."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._sum = hashlib.sha256()
        self.count = 0

    def write(self, data: bytes) -> None:
        self._sum.update(data)
        self._out.write(data)
        self.count += len(data)

    def finish(self) -> None:
        self.write(self._sum.digest())
        self._out.flush()


def _data_bytes(source: Source) -> int:
    if source.file is None:
        return 0
    with _opened(source.file) as fd:
        return sum(end - start for start, end in data_runs(fd, source.member.size))


@contextmanager
def _opened(file: Path | int) -> Iterator[int]:
    if isinstance(file, int):
        yield file
        return
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


_Packed = tuple[bytes, bytes]


def _packed(pool: ThreadPoolExecutor, sources: Sequence[Source]) -> Iterator[_Packed]:
    """Head and content of every piece, in order; those that are all zero are left out."""
    waiting: deque[Future[_Packed | None]] = deque()
    with ExitStack() as held:
        held.callback(pool.shutdown, cancel_futures=True)
        for index, start, data in _pieces(sources):
            waiting.append(pool.submit(_pack, index, start, data))
            while len(waiting) >= _AHEAD:
                yield from _done(waiting.popleft())
        while waiting:
            yield from _done(waiting.popleft())


def _done(future: "Future[_Packed | None]") -> Iterator[_Packed]:
    found = future.result()
    if found is not None:
        yield found


def _pack(index: int, start: int, data: bytes) -> _Packed | None:
    if data == _ZEROS[: len(data)]:
        return None
    packed = pack(data)
    piece = Piece(index, len(data), start, len(packed), zlib.crc32(data))
    return piece.encode(), packed


def _pieces(sources: Sequence[Source]) -> Iterator[tuple[int, int, bytes]]:
    """(member, offset, content) of all that is no hole. Pieces end at multiples of their length, so
    that the same content makes the same pieces."""
    for index, source in enumerate(sources):
        if source.file is None or source.member.kind is not Kind.FILE:
            continue
        with _opened(source.file) as fd:
            for start, end in data_runs(fd, source.member.size):
                for at, stop in _cut(start, end):
                    yield index, at, _read(fd, at, stop - at)


def _cut(start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        stop = min(end, start - start % PIECE_BYTES + PIECE_BYTES)
        yield start, stop
        start = stop


def _read(fd: int, start: int, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        more = os.pread(fd, length - len(data), start + len(data))
        if not more:
            raise OSError(errno.EIO, "a file became shorter while it was read")
        data += more
    return bytes(data)
