"""What an archive says of itself before its content: pure values and their bytes.

The format is docs/archive-format.md. What is decoded may come from anybody: every bound is looked
at before anything is made of it, and a document that is made is valid.
"""

import json
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Self

MAGIC = b"WRENNARC"
VERSION = 1
HEAD = struct.Struct("<8sHHIII")  # magic, version, 0, length, CRC of the document, CRC of this
_HEAD_CHECKED = HEAD.size - 4
PIECE = struct.Struct("<IIQIII")  # member, length, offset, packed, CRC of content, CRC of this
_PIECE_CHECKED = PIECE.size - 4
PIECE_BYTES = 1 << 20
END = 0xFFFFFFFF  # in the place of a member: the end
SUM_BYTES = 32  # SHA-256
MAX_MEMBERS = 200_000
MAX_SIZE = 1 << 44  # of a file: 16 TiB, ext4's bound
MAX_DEPTH = 8
MODES = frozenset({0o400, 0o444, 0o600, 0o644, 0o700, 0o755})
_NAME = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,128}")
_TARGET = re.compile(r"[A-Za-z0-9._/-]{1,255}")


class ArchiveError(ValueError):
    """These are not the bytes, or the parts, of an archive. Its text is a clause."""


class OtherVersion(ArchiveError):
    """It was written by another version of this program."""


class Kind(StrEnum):
    """What a member is: `target` of a LINK is an earlier member's path, of a SYMLINK any text."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    SYMLINK = "symlink"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One name in an archive. size: of a FILE, in bytes, holes and all. mode: permissions."""

    path: str
    kind: Kind = Kind.FILE
    size: int = 0
    mode: int = 0o444
    target: str = ""

    def __post_init__(self) -> None:
        names = self.path.split("/")
        if len(names) > MAX_DEPTH or not all(_NAME.fullmatch(name) for name in names):
            raise ArchiveError(f"{self.path!r} can't be the name of a file in it")
        if not 0 <= self.size <= MAX_SIZE or (self.size and self.kind is not Kind.FILE):
            raise ArchiveError(f"{self.path} can't have {self.size} bytes")
        if self.mode not in MODES:
            raise ArchiveError(f"{self.path} can't have the permissions {self.mode:o}")
        if bool(self.target) != (self.kind in (Kind.LINK, Kind.SYMLINK)):
            raise ArchiveError(f"{self.path} is a {self.kind} to {self.target!r}")
        if self.target and not _TARGET.fullmatch(self.target):
            raise ArchiveError(f"{self.path} can't lead to {self.target!r}")

    @property
    def parent(self) -> str:
        """Empty at the top."""
        found = str(PurePosixPath(self.path).parent)
        return "" if found == "." else found


@dataclass(frozen=True, kw_only=True)
class Document:
    """What stands before the content.

    kind: `snapshot` or `backup`. about: whatever that kind has to say, by name. data_bytes: how
    much content follows, at most; holes and what is all zero are not in it.
    """

    kind: str
    created: str
    about: Mapping[str, str]
    members: tuple[Member, ...]
    data_bytes: int

    def __post_init__(self) -> None:
        if len(self.members) > MAX_MEMBERS:
            raise ArchiveError(f"it has more than {MAX_MEMBERS} files")
        if not 0 <= self.data_bytes <= sum(member.size for member in self.members):
            raise ArchiveError(f"{self.data_bytes} bytes can't be in its files")
        seen: dict[str, Kind] = {}
        for member in self.members:
            _check_place(member, seen)
            seen[member.path] = member.kind

    def encode(self) -> bytes:
        """With the head before it."""
        value = {
            "kind": self.kind,
            "created": self.created,
            "about": dict(self.about),
            "data_bytes": self.data_bytes,
            "members": [{**vars(member), "kind": str(member.kind)} for member in self.members],
        }
        text = json.dumps(value, sort_keys=True).encode()
        head = HEAD.pack(MAGIC, VERSION, 0, len(text), zlib.crc32(text), 0)[:_HEAD_CHECKED]
        return head + struct.pack("<I", zlib.crc32(head)) + text

    @classmethod
    def decode(cls, text: bytes, checksum: int) -> Self:
        """checksum: what the head says. Errors: ArchiveError."""
        if zlib.crc32(text) != checksum:
            raise ArchiveError("its list of files is damaged")
        try:
            value = json.loads(text)
            members = tuple(_member(item) for item in value["members"])
            return cls(
                kind=_text(value["kind"]),
                created=_text(value["created"]),
                about=MappingProxyType(
                    {_text(name): _text(item) for name, item in value["about"].items()}
                ),
                members=members,
                data_bytes=_number(value["data_bytes"]),
            )
        except ArchiveError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArchiveError(f"its list of files makes no sense: {error!r}") from error


def decode_head(head: bytes, max_bytes: int) -> tuple[int, int]:
    """(length, checksum) of the document that follows. Errors: ArchiveError, OtherVersion."""
    magic, version, filler, length, checksum, own = HEAD.unpack(head)
    if magic != MAGIC:
        raise ArchiveError("it was not written by Wrenn")
    if version != VERSION:
        raise OtherVersion(f"it is of version {version}, and this Wrenn reads version {VERSION}")
    if own != zlib.crc32(head[:_HEAD_CHECKED]) or filler:
        raise ArchiveError("its beginning is damaged")
    if length > max_bytes:
        raise ArchiveError(f"its list of files has {length} bytes, and {max_bytes} are allowed")
    return length, checksum


@dataclass(frozen=True)
class Piece:
    """What stands before a piece of content, or at the end: then `offset` counts the pieces."""

    member: int
    length: int
    offset: int
    packed: int
    checksum: int

    @property
    def is_end(self) -> bool:
        return self.member == END

    def encode(self) -> bytes:
        head = PIECE.pack(self.member, self.length, self.offset, self.packed, self.checksum, 0)[
            :_PIECE_CHECKED
        ]
        return head + struct.pack("<I", zlib.crc32(head))

    @classmethod
    def decode(cls, head: bytes) -> Self:
        """Errors: ArchiveError."""
        *fields, own = PIECE.unpack(head)
        found = cls(*fields)
        if own != zlib.crc32(head[:_PIECE_CHECKED]):
            raise ArchiveError("it is damaged")
        if found.is_end:
            if found.length or found.packed or found.checksum:
                raise ArchiveError("its end is damaged")
        elif not 0 < found.packed <= found.length <= PIECE_BYTES:
            raise ArchiveError(f"a piece can't have {found.length} bytes in {found.packed}")
        return found

    @classmethod
    def end(cls, pieces: int) -> Self:
        return cls(END, 0, pieces, 0, 0)


def pack(data: bytes) -> bytes:
    """As it is if that is no longer."""
    packed = zlib.compress(data, 1)  # level 6 takes three times as long and saves a tenth
    return packed if len(packed) < len(data) else data


def unpack(piece: Piece, packed: bytes) -> bytes:
    """The content, which is checked; never more than the piece says. Errors: ArchiveError."""
    data = packed if piece.packed == piece.length else _inflate(packed, piece.length)
    if zlib.crc32(data) != piece.checksum:
        raise ArchiveError("its content is damaged")
    return data


def _inflate(packed: bytes, length: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(packed, length + 1)
    except zlib.error as error:
        raise ArchiveError("its content is damaged") from error
    if len(data) != length or not stream.eof or stream.unused_data:
        raise ArchiveError("its content is damaged")
    return data


def _check_place(member: Member, seen: Mapping[str, Kind]) -> None:
    """Its directory comes before it and is one; so does what it is another name of."""
    if member.path in seen:
        raise ArchiveError(f"it has {member.path} twice")
    if member.parent and seen.get(member.parent) is not Kind.DIRECTORY:
        raise ArchiveError(f"it has {member.path}, but no directory for it")
    if member.kind is Kind.LINK and seen.get(member.target) is not Kind.FILE:
        raise ArchiveError(f"{member.path} is another name of {member.target}, which is no file")


def _member(item: dict[str, Any]) -> Member:
    if set(item) != {"path", "kind", "size", "mode", "target"}:
        raise ArchiveError(f"a file in it has {', '.join(sorted(item))}")
    return Member(
        path=_text(item["path"]),
        kind=Kind(_text(item["kind"])),
        size=_number(item["size"]),
        mode=_number(item["mode"]),
        target=_text(item["target"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ArchiveError(f"{str(value)[:80]!r} in it is not a text")
    return value


def _number(value: Any) -> int:
    if type(value) is not int:
        raise ArchiveError(f"{str(value)[:80]!r} in it is not a number")
    return value
