"""Read the tar stream of a guest's busybox: nobody vouches for it, so little is understood.

Pure but for reading. Understood are files, directories, links and GNU's long names, which is all
that busybox writes; everything has a limit before it is believed. What is done with the names is
for the caller, who must not trust them either.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

BLOCK = 512
MAX_NAME_BYTES = 4096  # Linux's PATH_MAX
MAX_FILE_BYTES = 1 << 50

# Gives at most that many bytes, at least one but at the end.
Read = Callable[[int], bytes]


class Kind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARD_LINK = "hard link"
    OTHER = "other"


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"5": Kind.DIRECTORY,
}
_LONG_NAME, _LONG_LINK = b"L", b"K"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One entry: its path below the root that was archived, and where a link leads."""

    kind: Kind
    path: bytes
    target: bytes
    size: int
    mode: int


class TarBroken(ValueError):
    """These bytes are no tar stream, or one that breaks off."""


class TarStream:
    """The members of one stream, in their order. `content` must be read before the next one."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._left = 0  # of the member's content
        self._padding = 0

    def members(self) -> Iterator[Member]:
        """Errors: TarBroken."""
        names: dict[bytes, bytes] = {}
        while (header := self._exactly(BLOCK)) != bytes(BLOCK):
            self._left = _checked_size(header)
            self._padding = -self._left % BLOCK
            kind = header[156:157]
            if kind in (_LONG_NAME, _LONG_LINK):
                names[kind] = self._long_name()
                continue
            if kind in (b"1", b"2", b"5"):
                self._left = self._padding = 0
            yield Member(
                kind=_KINDS.get(kind, Kind.OTHER),
                path=names.pop(_LONG_NAME, b"") or _path(header),
                target=names.pop(_LONG_LINK, b"") or _text(header[157:257]),
                size=self._left,
                mode=_octal(header[100:108]) & 0o7777,
            )
            self._skip()

    def content(self) -> Iterator[bytes]:
        """Of the member that came last. Errors: TarBroken."""
        while self._left:
            data = self._some(self._left)
            self._left -= len(data)
            yield data

    def _long_name(self) -> bytes:
        if self._left > MAX_NAME_BYTES:
            raise TarBroken("a name is too long")
        name = self._exactly(self._left).rstrip(b"\0")
        self._left = 0
        self._skip()
        return name

    def _skip(self) -> None:
        for _data in self.content():
            pass
        self._exactly(self._padding)
        self._padding = 0

    def _exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            got += self._some(count - len(got))
        return got

    def _some(self, count: int) -> bytes:
        data = self._read(min(count, 1 << 20))
        if not data:
            raise TarBroken("it breaks off")
        return data


def _checked_size(header: bytes) -> int:
    said = _octal(header[148:156])
    if said != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
        raise TarBroken("a header's checksum is wrong")
    size = _octal(header[124:136])
    if size > MAX_FILE_BYTES:
        raise TarBroken(f"a file can't have {size} bytes")
    return size


def _octal(field: bytes) -> int:
    if field[0] == 0x80:  # GNU's form for what does not fit
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0") or b"0"
    if text.strip(b"01234567"):  # int() would take signs and underscores, too
        raise TarBroken("a header holds what is no number")
    return int(text, 8)


def _path(header: bytes) -> bytes:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else b""
    name = _text(header[:100])
    return prefix + b"/" + name if prefix else name


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
