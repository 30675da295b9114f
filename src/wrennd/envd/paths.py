"""Paths as callers give them: where they lead, what is made on the way, how errors are named."""

from __future__ import annotations

import errno
import os

from wrennd.envd.connect import RpcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.users import Account

DIRECTORY_MODE = 0o755

_CODES = {
    errno.ENOENT: "not_found",
    errno.EEXIST: "already_exists",
    errno.ENOTEMPTY: "failed_precondition",
    errno.ENOTDIR: "invalid_argument",
    errno.EISDIR: "invalid_argument",
    errno.EINVAL: "invalid_argument",
    errno.ENAMETOOLONG: "invalid_argument",
    errno.ELOOP: "failed_precondition",
    errno.EXDEV: "failed_precondition",
    errno.EBUSY: "failed_precondition",
    errno.ETXTBSY: "failed_precondition",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.ENOSPC: "resource_exhausted",
    errno.EDQUOT: "resource_exhausted",
    errno.EMFILE: "resource_exhausted",
    errno.ENFILE: "resource_exhausted",
    errno.ENOMEM: "resource_exhausted",
}


def resolve(path: str, account: Account, workdir: str) -> str:
    """Absolute, without `.` and `..`: `~` and relative paths begin at the user's home, or the
    default directory."""
    if path == "~" or path.startswith("~/"):
        path = account.home + path[1:]
    # POSIX gives two leading slashes a meaning of their own, and normpath keeps them.
    return "/" + os.path.normpath(os.path.join(account.home, workdir, path)).lstrip("/")


def printable(text: str) -> str:
    """Bytes of a name that are no UTF-8 become U+FFFD: JSON could not carry them."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def rpc_error(error: OSError, path: str) -> RpcError:
    path = printable(path)
    if error.errno == errno.ENOENT:
        return RpcError("not_found", f"path '{path}' does not exist")
    code = _CODES.get(error.errno or 0, "internal")
    return RpcError(code, f"path '{path}': {os.strerror(error.errno or 0)}")


def make_directories(folder: str, account: Account) -> None:
    """Like mkdir -p, with what is made belonging to the user. Errors: OSError."""
    missing = []
    while folder and not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for name in reversed(missing):
        try:
            os.mkdir(name, DIRECTORY_MODE)
        except FileExistsError:
            # Somebody in the guest was faster; it is theirs.
            continue
        if os.geteuid() == 0:
            os.chown(name, account.uid, account.gid)
