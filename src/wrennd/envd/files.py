"""GET and POST /files: whole files in and out, streamed.

An upload takes the body as it is (application/octet-stream), makes missing parents, truncates what
is there and belongs to the user afterwards. `mode` (octal) is our addition to the contract: the
permission bits of the file; without it they are 0644.
"""

from __future__ import annotations

import errno
import os
import stat

from wrennd.envd.auth import user_name
from wrennd.envd.connect import RpcError
from wrennd.envd.http import parse_query
from wrennd.envd.paths import make_directories, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.connection import Exchange, Handler
    from wrennd.envd.init import Settings

READ_BYTES = 64 << 10
DEFAULT_MODE = 0o644
RAW = "application/octet-stream"

_STATUS = {
    errno.ENOENT: 404,
    errno.ENOTDIR: 400,
    errno.EISDIR: 400,
    errno.EACCES: 403,
    errno.EPERM: 403,
    errno.ENAMETOOLONG: 400,
    errno.ELOOP: 400,
    errno.EROFS: 403,
    errno.ETXTBSY: 409,
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
    if error.errno == errno.ENOENT:
        return FileError(404, f"path '{path}' does not exist")
    status = _STATUS.get(error.errno or 0, 500)
    return FileError(status, f"path '{path}': {os.strerror(error.errno or 0)}")


class Target:
    """The file that a request is about, and for whom. Errors: FileError."""

    def __init__(self, exchange: Exchange, settings: Settings) -> None:
        query = parse_query(exchange.request.query)
        given = query.get("path", "")
        if not given or "\0" in given:
            raise FileError(400, "the query has no usable 'path'")
        try:
            name = query.get("username") or user_name(exchange.request.headers)
            self.account = settings.account(name)
        except RpcError as error:
            raise FileError(401, error.message) from None
        self.path = resolve(given, self.account, settings.workdir)
        self.mode = parse_mode(query.get("mode", ""))


def parse_mode(text: str) -> int | None:
    if not text:
        return None
    if len(text) > 5 or not set(text) <= set("01234567"):
        raise FileError(400, f"mode {text!r} is not an octal number")
    mode = int(text, 8)
    if mode > 0o7777:
        raise FileError(400, f"mode {text!r} has more than permission bits")
    return mode


def handler(exchange: Exchange, settings: Settings) -> Handler:
    """The handler of a /files request; the refusal of a bad one is sent at its end."""
    return (
        Download(exchange, settings)
        if exchange.request.method == "GET"
        else Upload(exchange, settings)
    )


class Download:
    """Handler: sends a file, reading no faster than the client does."""

    def __init__(self, exchange: Exchange, settings: Settings) -> None:
        self._exchange = exchange
        self._settings = settings
        self._fd = -1
        self._path = ""

    def data(self, data: bytes) -> None:
        pass

    def end(self) -> None:
        try:
            target = Target(self._exchange, self._settings)
            self._path = target.path
            self._fd = open_regular(target.path)
            first = read(self._fd, target.path)
        except FileError as error:
            self.closed()
            self._exchange.fail(error.status, error.message)
            return
        self._send(first)

    def drained(self) -> None:
        if self._fd >= 0:
            self._pump()

    def closed(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _send(self, first: bytes) -> None:
        # A size from stat would be wrong for what the kernel makes up (/proc, /sys).
        headers = [("Content-Type", RAW)]
        if len(first) < READ_BYTES:
            self.closed()
            self._exchange.reply(200, headers, first)
            return
        self._exchange.begin(200, headers)
        self._exchange.write(first)
        self._pump()

    def _pump(self) -> None:
        while not self._exchange.is_full:
            try:
                data = read(self._fd, self._path)
            except FileError:
                # Too late for a status: the broken body tells.
                self.closed()
                self._exchange.abort()
                return
            if not data:
                self.closed()
                self._exchange.finish()
                return
            self._exchange.write(data)


def open_regular(path: str) -> int:
    """Errors: FileError. A FIFO must not block us, and a directory is no file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise file_error(error, path) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileError(400, f"path '{path}' is not a regular file")
    return fd


def read(fd: int, path: str) -> bytes:
    """Up to READ_BYTES; fewer only at the end. Errors: FileError."""
    parts: list[bytes] = []
    missing = READ_BYTES
    try:
        while missing and (part := os.read(fd, missing)):
            parts.append(part)
            missing -= len(part)
    except OSError as error:
        raise file_error(error, path) from None
    return b"".join(parts)


class Upload:
    """Handler: writes the body to the file as it comes."""

    def __init__(self, exchange: Exchange, settings: Settings) -> None:
        self._exchange = exchange
        self._fd = -1
        self._target: Target | None = None
        self._refusal: FileError | None = None
        try:
            check_type(exchange.request.headers)
            self._target = Target(exchange, settings)
            self._fd = create(self._target)
        except FileError as error:
            self._refusal = error

    def data(self, data: bytes) -> None:
        if self._refusal is not None or self._target is None:
            return
        try:
            write(self._fd, data, self._target.path)
        except FileError as error:
            self._refusal = error
            self.closed()
            # No use in taking the rest of a body that has no place.
            self._exchange.fail(error.status, error.message)

    def end(self) -> None:
        self.closed()
        if self._refusal is not None:
            self._exchange.fail(self._refusal.status, self._refusal.message)
            return
        assert self._target is not None
        path = self._target.path
        name = os.path.basename(path)
        self._exchange.reply_json(200, [{"path": path, "name": name, "type": "file"}])

    def drained(self) -> None:
        pass

    def closed(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def check_type(headers: dict[str, str]) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != RAW:
        raise FileError(415, f"a body of type {kind!r} is not supported, only {RAW}")
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding not in ("", "identity"):
        raise FileError(415, f"content encoding {encoding!r} is not supported")


def create(target: Target) -> int:
    """Open the file for writing, with its parents made and its owner and mode set.

    Errors: FileError.
    """
    account, path = target.account, target.path
    try:
        make_directories(os.path.dirname(path), account)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY
        fd = os.open(path, flags, DEFAULT_MODE)
    except OSError as error:
        raise file_error(error, path) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FileError(400, f"path '{path}' is not a regular file")
        if os.geteuid() == 0:
            os.fchown(fd, account.uid, account.gid)
        if target.mode is not None:
            os.fchmod(fd, target.mode)
    except OSError as error:
        os.close(fd)
        raise file_error(error, path) from None
    except FileError:
        os.close(fd)
        raise
    return fd


def write(fd: int, data: bytes, path: str) -> None:
    """Errors: FileError."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise file_error(error, path) from None
