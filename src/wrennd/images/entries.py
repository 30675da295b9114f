"""What may be in the archive of a root filesystem that somebody gives us. Pure: nothing is opened.

A refusal names the entry. Names are shown as Python would write them, so that nothing in them can
speak to a terminal.
"""

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

MAX_NAME_BYTES = 255  # of one part, on every filesystem
MAX_PATH_BYTES = 4095
MAX_DEPTH = 256  # what removes or formats a tree goes down into itself for each level
LAST_TIME = (1 << 34) - 1  # seconds since 1970 that ext4 can hold
LAST_BYTE = (1 << 63) - 1  # of any file
_SHOWN = 300  # characters of a name that are repeated: an archive's may have millions
_XATTR = "SCHILY.xattr."
# Capabilities make programs such as ping work; labels and ACLs of the origin mean nothing here.
_KEPT_XATTRS = ("user.", "security.capability")


class BadTree(Exception):
    """The tree can't become an image; the text says which entry, and why."""


class TooLarge(BadTree):
    """There is more in it than the disk holds."""


class Kind(StrEnum):
    """What an entry makes. LEFT_OUT: what the guest's kernel makes itself, or nobody misses."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARD_LINK = "hard link"
    LEFT_OUT = "left out"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry that may be made. `parts` is its path: none for the root directory itself.

    target: of a symlink, as it is; of a hard link see `linked`. xattrs: those that are kept.
    """

    parts: tuple[str, ...]
    kind: Kind
    target: str
    linked: tuple[str, ...]
    uid: int
    gid: int
    mode: int
    mtime: float
    xattrs: Mapping[str, bytes]
    lost_xattrs: int


def judge(member: tarfile.TarInfo, *, max_id: int) -> Entry:
    """The entry of an archive's member. Errors: BadTree."""
    name = parts(member.name)
    kind = _kind(member, name)
    _check_numbers(member, max_id)
    kept, lost = _xattrs(member)
    return Entry(
        parts=name,
        kind=kind,
        target=_text(member.linkname, f"the target of {member.name!r}"),
        linked=_linked(member) if kind is Kind.HARD_LINK else (),
        uid=member.uid,
        gid=member.gid,
        mode=member.mode & 0o7777,
        mtime=min(max(0.0, float(member.mtime)), LAST_TIME),
        xattrs=kept,
        lost_xattrs=lost,
    )


def parts(name: str) -> tuple[str, ...]:
    """The parts of an entry's name below the root. Errors: BadTree."""
    shown = repr(name[:_SHOWN])
    _text(name, f"the name {shown}")
    if name.startswith("/"):
        raise BadTree(f"the name {shown} is absolute: names in a root filesystem are relative")
    found = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in found:
        raise BadTree(f"the name {shown} leads upwards: '..' can't be part of a name")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in found):
        raise BadTree(f"a part of the name {shown} is longer than {MAX_NAME_BYTES} bytes")
    if len(name.encode()) > MAX_PATH_BYTES:
        raise BadTree(f"the name {shown}... is longer than {MAX_PATH_BYTES} bytes")
    if len(found) > MAX_DEPTH:
        raise BadTree(f"{shown}... lies more than {MAX_DEPTH} directories deep")
    return found


def _text(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadTree(f"{what} is not UTF-8") from None
    if "\0" in text:
        raise BadTree(f"{what} has a zero byte in it")
    return text


def _kind(member: tarfile.TarInfo, name: tuple[str, ...]) -> Kind:
    if not name and not member.isdir():
        raise BadTree(f"the root of the tree, {member.name!r}, is no directory")
    for kind, is_it in (
        (Kind.DIRECTORY, member.isdir()),
        (Kind.SYMLINK, member.issym()),
        (Kind.HARD_LINK, member.islnk()),
        (Kind.FILE, member.isreg()),
    ):
        if is_it:
            return kind
    what = {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a fifo"}
    if member.type not in what:
        raise BadTree(f"{member.name!r} is of a type that is not known, {member.type!r}")
    # Exports of containers have /dev/console and the like; the guest's devtmpfs brings its own.
    if name[0] == "dev":
        return Kind.LEFT_OUT
    raise BadTree(f"{member.name!r} is {what[member.type]}: an image has those in /dev only")


def _linked(member: tarfile.TarInfo) -> tuple[str, ...]:
    try:
        return parts(member.linkname)
    except BadTree as error:
        raise BadTree(f"the hard link {member.name!r} leaves the tree: {error}") from None


def _check_numbers(member: tarfile.TarInfo, max_id: int) -> None:
    for what, number in (("user", member.uid), ("group", member.gid)):
        if not 0 <= number <= max_id:
            raise BadTree(f"{member.name!r} belongs to {what} {number}: {max_id} is the last")
    if not 0 <= member.size <= LAST_BYTE:
        raise BadTree(f"{member.name!r} has a size of {str(member.size)[:_SHOWN]} bytes")
    runs: list[tuple[int, int]] = member.sparse or []  # type: ignore[assignment]
    for start, size in runs:
        if min(start, size) < 0 or start + size > member.size:
            raise BadTree(f"{member.name!r} has data where it has no bytes")
    if member.mtime != member.mtime:  # not a number
        raise BadTree(f"{member.name!r} has no time")


def _xattrs(member: tarfile.TarInfo) -> tuple[dict[str, bytes], int]:
    """Those that are kept, and how many are not."""
    found = {
        key.removeprefix(_XATTR): value.encode(errors="surrogateescape")
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR)
    }
    kept = {name: value for name, value in found.items() if name.startswith(_KEPT_XATTRS)}
    return kept, len(found) - len(kept)
