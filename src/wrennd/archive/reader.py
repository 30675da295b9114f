"""Reads an archive from a stream that nobody vouches for, and unpacks it into a directory.

The order is the writer's: the list of files, then content in ascending order, then a checksum of
all of it. Nothing is made whose name, size or place was not looked at; content can't be more than
the list said. Files are made by descriptors of their directories, never through a symlink: those
come last.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wrennd.archive.document import (
    HEAD,
    PIECE,
    SUM_BYTES,
    ArchiveError,
    Document,
    Kind,
    Member,
    Piece,
    decode_head,
    unpack,
)

_CUT = "it is cut short"


@dataclass
class _Place:
    """How far the content has come: in which member, and to which offset of it."""

    member: int = -1
    offset: int = 0
    pieces: int = 0
    data_bytes: int = 0


class Archive:
    """An archive whose list of files was read. `unpack` reads the rest, once.

    Errors of all: ArchiveError, OtherVersion; OSError of the stream and of what is written.
    """

    def __init__(self, stream: BinaryIO, *, max_document: int) -> None:
        """max_document: how many bytes its list of files may have."""
        self._stream = stream
        self._sum = hashlib.sha256()
        length, checksum = decode_head(self._read(HEAD.size), max_document)
        self.document = Document.decode(self._read(length), checksum)

    def unpack(self, directory: Path) -> None:
        """Make all members in `directory`, which is there and has none of them; each is on the disk
        on return. On an error some are there."""
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with ExitStack() as held:
            held.callback(os.close, root)
            self._make_directories(root)
            self._fill(root)
            for member in self.document.members:
                if member.kind is Kind.LINK:
                    os.link(
                        member.target,
                        member.path,
                        src_dir_fd=root,
                        dst_dir_fd=root,
                        follow_symlinks=False,
                    )
            for member in self.document.members:
                if member.kind is Kind.SYMLINK:
                    os.symlink(member.target, member.path, dir_fd=root)
            self._sync_directories(root)

    def _make_directories(self, root: int) -> None:
        """All of them are ours, made just now: no path below `root` leads anywhere else."""
        for member in self.document.members:
            if member.kind is Kind.DIRECTORY:
                os.mkdir(member.path, member.mode, dir_fd=root)

    def _sync_directories(self, root: int) -> None:
        for member in reversed(self.document.members):
            if member.kind is Kind.DIRECTORY:
                fd = os.open(member.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        os.fsync(root)

    def _fill(self, root: int) -> None:
        """Make every file with its content. Empty ones, and ends of sparse ones, too."""
        place = _Place()
        piece = self._next(place)
        for index, member in enumerate(self.document.members):
            if member.kind is not Kind.FILE:
                continue
            with _made(root, member) as fd:
                while not piece.is_end and piece.member == index:
                    _write(fd, self._content(piece), piece.offset)
                    piece = self._next(place)
        if not piece.is_end:
            raise ArchiveError("it has content of no file")
        if piece.offset != place.pieces:
            raise ArchiveError(f"it has {place.pieces} pieces instead of {piece.offset}")
        self._check_sum()

    def _next(self, place: _Place) -> Piece:
        """The head of what follows, which is behind all that came before it."""
        piece = Piece.decode(self._read(PIECE.size))
        if piece.is_end:
            return piece
        if piece.member < place.member or piece.member >= len(self.document.members):
            raise ArchiveError("its content is not in order")
        if piece.member > place.member:
            place.member, place.offset = piece.member, 0
        end = piece.offset + piece.length
        if piece.offset < place.offset or end > self.document.members[piece.member].size:
            raise ArchiveError(f"its content of {self._name(piece)} is not in order")
        place.offset, place.pieces = end, place.pieces + 1
        place.data_bytes += piece.length
        if place.data_bytes > self.document.data_bytes:
            raise ArchiveError("it has more content than it says")
        return piece

    def _content(self, piece: Piece) -> bytes:
        try:
            return unpack(piece, self._read(piece.packed))
        except ArchiveError as error:
            raise ArchiveError(f"{error}, in {self._name(piece)} at {piece.offset}") from None

    def _name(self, piece: Piece) -> str:
        return self.document.members[piece.member].path

    def _check_sum(self) -> None:
        wanted = self._sum.digest()
        if self._stream_read(SUM_BYTES) != wanted:
            raise ArchiveError("its checksum is wrong")
        if self._stream.read(1):
            raise ArchiveError("something follows its end")

    def _read(self, count: int) -> bytes:
        data = self._stream_read(count)
        self._sum.update(data)
        return data

    def _stream_read(self, count: int) -> bytes:
        """Exactly so much: a pipe gives what it has."""
        parts, missing = [], count
        while missing:
            part = self._stream.read(missing)
            if not part:
                raise ArchiveError(_CUT)
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


@contextmanager
def _made(root: int, member: Member) -> Iterator[int]:
    """A new file of a member, of its size; on the disk, with its permissions, at the end."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(member.path, flags, 0o600, dir_fd=root)
    try:
        _set_size(fd, member)
        yield fd
        os.fchmod(fd, member.mode)
        os.fsync(fd)
    finally:
        os.close(fd)


def _set_size(fd: int, member: Member) -> None:
    try:
        os.ftruncate(fd, member.size)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        text = f"{member.path} has {member.size} bytes, too many for this filesystem"
        raise ArchiveError(text) from error


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
