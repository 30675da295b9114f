"""The newc cpio format of an initrd, written by rule: same entries in, same bytes out.

Pure: values in, bytes out. Names are sorted, owners are root, times are 0 and inode numbers count
up, so the archive depends on nothing but its entries.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_MAGIC = b"070701"
# Linux's unpacker wants each header and each body on a boundary of 4 bytes.
_ALIGNMENT = 4


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing in the archive. `mode` holds type and permission bits, as in stat(2).

    name: path without a leading slash. data: a file's content or a symlink's target.
    device: (major, minor) of a character or block device.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith("/"):
            raise ValueError(f"{self.name!r} can't be a name in an initrd")
        if self.data and not (stat.S_ISREG(self.mode) or stat.S_ISLNK(self.mode)):
            raise ValueError(f"{self.name!r} has data, but is neither file nor symlink")


# The kernel stops reading at the entry of this name.
_TRAILER = Entry(name="TRAILER!!!", mode=0)


def directory(name: str, mode: int = 0o755) -> Entry:
    return Entry(name=name, mode=stat.S_IFDIR | mode)


def file(name: str, data: bytes, mode: int = 0o644) -> Entry:
    return Entry(name=name, mode=stat.S_IFREG | mode, data=data)


def character_device(name: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    return Entry(name=name, mode=stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive of `entries`, parents before children; a name given twice is a ValueError."""
    ordered = sorted(entries, key=lambda entry: entry.name.split("/"))
    names = {entry.name for entry in ordered}
    if len(names) != len(ordered):
        raise ValueError("two entries of the initrd have the same name")
    records = [_record(entry, number) for number, entry in enumerate(ordered, 1)]
    return b"".join(records) + _record(_TRAILER, 0)


def _record(entry: Entry, number: int) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # ino, mode, uid, gid, nlink, mtime, filesize, device of the file system, device of the node,
    # namesize, and a checksum that this magic doesn't use.
    fields = (
        number,
        entry.mode,
        0,
        0,
        links,
        0,
        len(entry.data),
        0,
        0,
        *entry.device,
        len(name),
        0,
    )
    header = _MAGIC + b"".join(b"%08x" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)
