"""What every request about a file's contents has in common: who may, which path, what errors mean.

`download`, `upload` and `compose` do the work; all of this is imported with the first request.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from wrennd.envd.auth import TOKEN_HEADER, user_name
from wrennd.envd.connect import RpcError
from wrennd.envd.http import parse_query
from wrennd.envd.paths import make_directories, printable, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.auth import Access
    from wrennd.envd.connection import Exchange
    from wrennd.envd.init import Settings
    from wrennd.envd.users import Account

DEFAULT_MODE = 0o644

_STATUS = {
    errno.ENOENT: 404,
    errno.ENOTDIR: 400,
    errno.EISDIR: 400,
    errno.EACCES: 403,
    errno.EPERM: 403,
    errno.ENAMETOOLONG: 400,
    errno.ELOOP: 400,
    errno.EINVAL: 400,
    errno.ENXIO: 400,  # a FIFO that nobody reads, a socket
    errno.EROFS: 403,
    errno.ETXTBSY: 409,
    errno.EOPNOTSUPP: 400,
    errno.ENOSPC: 507,
    errno.EDQUOT: 507,
    errno.EFBIG: 507,
}


class FileError(Exception):
    """A refusal: the HTTP status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def file_error(error: OSError, path: str) -> FileError:
    path = printable(path)
    if error.errno == errno.ENOENT:
        return FileError(404, f"path '{path}' does not exist")
    status = _STATUS.get(error.errno or 0, 500)
    return FileError(status, f"path '{path}': {os.strerror(error.errno or 0)}")


class Query:
    """The query of a /files request. Errors: FileError 400 for values that can't be meant."""

    def __init__(self, text: str) -> None:
        values = parse_query(text)
        self.path = values.get("path", "")
        self.username = values.get("username", "")
        self.signature = values.get("signature", "")
        self.expiration = values.get("signature_expiration", "")
        self.mode = parse_mode(values.get("mode", ""))
        if "\0" in self.path:
            raise FileError(400, "the query has no usable 'path'")
        if self.expiration and not (self.expiration.isascii() and self.expiration.isdigit()):
            raise FileError(400, "signature_expiration is not a number of seconds")


def parse_mode(text: str) -> int | None:
    if not text:
        return None
    if len(text) > 5 or not set(text) <= set("01234567"):
        raise FileError(400, f"mode {text!r} is not an octal number")
    mode = int(text, 8)
    if mode > 0o7777:
        raise FileError(400, f"mode {text!r} has more than permission bits")
    return mode


def check_access(access: Access, headers: dict[str, str], query: Query, operation: str) -> None:
    """The token, or a signature made with it; first whether it is valid, then whether it still is.

    Errors: FileError 401.
    """
    if access.allows(headers):
        return
    if TOKEN_HEADER in headers or not query.signature:
        raise FileError(401, "the access token is missing or wrong")
    signed = f"{query.path}:{operation}:{query.username}"
    if not access.has_signed(signed, query.expiration, query.signature):
        raise FileError(401, "invalid signature")
    if query.expiration and int(query.expiration) < int(time.time()):
        raise FileError(401, "signature is already expired")


def find_account(settings: Settings, username: str, headers: dict[str, str]) -> Account:
    """Errors: FileError 401."""
    try:
        return settings.account(username or user_name(headers))
    except RpcError as error:
        raise FileError(401, error.message) from None


def file_path(given: str, account: Account, settings: Settings) -> str:
    """Errors: FileError 400."""
    if not given or "\0" in given:
        raise FileError(400, "the query has no usable 'path'")
    return resolve(given, account, settings.workdir)


def fail(exchange: Exchange, error: FileError) -> None:
    if not exchange.finished:
        exchange.fail(error.status, error.message)


def open_regular(path: str) -> int:
    """For reading. Errors: FileError. A FIFO must not block us, and a directory is no file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise file_error(error, path) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileError(400, f"path '{printable(path)}' is not a regular file")
    return fd


def create(path: str, account: Account) -> int:
    """Open for writing from the start, with parents made; it belongs to the user from now on.

    Errors: FileError.
    """
    # Devices are refused before they are opened: opening some of them does something already.
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FileError(400, f"path '{printable(path)}' is not a regular file")
    except OSError:
        # Not there, most likely; opening it finds the right words.
        pass
    try:
        make_directories(os.path.dirname(path), account)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY
        fd = os.open(path, flags, DEFAULT_MODE)
    except OSError as error:
        raise file_error(error, path) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FileError(400, f"path '{printable(path)}' is not a regular file")
        if os.geteuid() == 0:
            os.fchown(fd, account.uid, account.gid)
    except OSError as error:
        os.close(fd)
        raise file_error(error, path) from None
    except FileError:
        os.close(fd)
        raise
    return fd


def read(fd: int, count: int, path: str) -> bytes:
    """Up to so many bytes; fewer only at the end. Errors: FileError."""
    parts: list[bytes] = []
    try:
        while count and (part := os.read(fd, count)):
            parts.append(part)
            count -= len(part)
    except OSError as error:
        raise file_error(error, path) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write(fd: int, data: bytes | bytearray, path: str) -> None:
    """Errors: FileError."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise file_error(error, path) from None
    finally:
        view.release()
