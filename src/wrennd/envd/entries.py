"""EntryInfo: what a caller is told of one name in the file tree.

A symlink is described by its target (type, permission bits), named as a symlink besides
(isSymlink, symlinkTarget, the letter in `permissions`): clients of both tastes find theirs.
"""

from __future__ import annotations

import os
import stat

from wrennd.envd import users
from wrennd.envd.clock import format_moment
from wrennd.envd.metadata import read_metadata
from wrennd.envd.paths import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.fields import Message

FILE = "FILE_TYPE_FILE"
DIRECTORY = "FILE_TYPE_DIRECTORY"
OTHER = "FILE_TYPE_UNSPECIFIED"

# The letters that Go prints for what a mode is, in the order in which it prints them.
_LETTERS = (
    (stat.S_ISDIR, "d"),
    (stat.S_ISLNK, "L"),
    (lambda mode: stat.S_ISBLK(mode) or stat.S_ISCHR(mode), "D"),
    (stat.S_ISFIFO, "p"),
    (stat.S_ISSOCK, "S"),
    (lambda mode: bool(mode & stat.S_ISUID), "u"),
    (lambda mode: bool(mode & stat.S_ISGID), "g"),
    (stat.S_ISCHR, "c"),
    (lambda mode: bool(mode & stat.S_ISVTX), "t"),
)


class Names:
    """Names of owners and groups, read once for all entries of a reply."""

    def __init__(self) -> None:
        self._users: dict[int, str] | None = None
        self._groups: dict[int, str] | None = None

    def user(self, uid: int) -> str:
        if self._users is None:
            self._users = users.user_names()
        return self._users.get(uid, str(uid))

    def group(self, gid: int) -> str:
        if self._groups is None:
            self._groups = users.group_names()
        return self._groups.get(gid, str(gid))


def permissions(mode: int) -> str:
    """As Go prints a file mode: -rw-r--r--, drwxr-xr-x, Lrwxrwxrwx, dtrwxrwxrwx, Dcrw-rw-rw-."""
    kind = "".join([letter for applies, letter in _LETTERS if applies(mode)])
    bits = "".join(
        [letter if mode >> (8 - at) & 1 else "-" for at, letter in enumerate("rwxrwxrwx")]
    )
    return (kind or "-") + bits


def file_type(mode: int) -> str:
    if stat.S_ISREG(mode):
        return FILE
    return DIRECTORY if stat.S_ISDIR(mode) else OTHER


def entry(path: str, names: Names, shown_as: str = "") -> Message:
    """The EntryInfo of a path, reported under another one if that is given. Errors: OSError."""
    found = os.lstat(path)
    shown = shown_as or path
    mode = found.st_mode
    info: Message = {
        "name": printable(os.path.basename(shown) or "/"),
        "type": file_type(mode),
        "path": printable(shown),
        "size": str(found.st_size),
        "mode": mode & 0o777,
        "permissions": permissions(mode),
        "owner": printable(names.user(found.st_uid)),
        "group": printable(names.group(found.st_gid)),
        "modifiedTime": format_moment(found.st_mtime_ns),
    }
    if stat.S_ISLNK(mode):
        _add_target(info, path)
    metadata = {} if info["type"] == OTHER else read_metadata(path)
    return info | {"metadata": metadata} if metadata else info


def _add_target(info: Message, path: str) -> None:
    """Type and bits of what the symlink leads to; of nothing known when it leads nowhere."""
    info["isSymlink"] = True
    info["symlinkTarget"] = printable(os.path.realpath(path))
    try:
        mode = os.stat(path).st_mode
    except OSError:
        info["type"], info["mode"] = OTHER, 0
    else:
        info["type"], info["mode"] = file_type(mode), mode & 0o777
