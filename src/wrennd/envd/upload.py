"""POST /files: files in, written as they come.

The body is one file (application/octet-stream) or several (multipart/form-data, parts named
`file`), packed by gzip or not. Small pieces are gathered, so that a small file is one write, which
watchers count on. A refused request is read to its end before it is answered, unless that is far:
clients that still write often don't read.
"""

from __future__ import annotations

import os

from wrennd.envd import files
from wrennd.envd.files import FileError
from wrennd.envd.jobs import Job
from wrennd.envd.metadata import from_headers, replace_metadata
from wrennd.envd.multipart import (
    EndOfPart,
    MultipartError,
    MultipartParser,
    Part,
    boundary_of,
)
from wrennd.envd.paths import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from wrennd.envd.auth import Access
    from wrennd.envd.connection import Exchange
    from wrennd.envd.fields import Message
    from wrennd.envd.gunzip import Gunzip
    from wrennd.envd.init import Settings
    from wrennd.envd.jobs import Steps
    from wrennd.envd.loop import Loop

    class Sink(Protocol):
        """Where the unpacked body goes. Errors: FileError, MultipartError."""

        def feed(self, data: bytes) -> None: ...
        def end(self) -> None: ...
        def close(self) -> None: ...


RAW = "application/octet-stream"
FORM = "multipart/form-data"
FORM_FIELD = "file"
GATHER_BYTES = 64 << 10
# Of a file that is larger than that, pieces from here on are not worth a copy.
PIECE_BYTES = 8 << 10
# What a client may still send in vain before it is interrupted.
MAX_UNWANTED_BYTES = 64 << 20


class Order:
    """What the head of the request asks for. Errors: FileError."""

    def __init__(self, exchange: Exchange, access: Access, settings: Settings) -> None:
        headers = exchange.request.headers
        query = files.Query(exchange.request.query)
        files.check_access(access, headers, query, "write")
        self.account = files.find_account(settings, query.username, headers)
        self.settings = settings
        self.path = query.path
        self.mode = query.mode
        self.content_type = headers.get("content-type", "")
        self.kind = self.content_type.partition(";")[0].strip().lower()
        self.is_packed = headers.get("content-encoding", "").lower() == "gzip"
        self.written: list[Message] = []
        self._paths: set[str] = set()
        try:
            self.metadata = from_headers(headers)
        except ValueError as error:
            raise FileError(400, str(error)) from None
        check_type(self.kind, headers.get("content-encoding", ""))

    def sink(self) -> Sink:
        """Errors: FileError."""
        if self.kind == RAW:
            return self.file(self.path)
        try:
            return Form(self, boundary_of(self.content_type))
        except MultipartError as error:
            raise FileError(400, str(error)) from None

    def file(self, given: str) -> File:
        """Errors: FileError."""
        path = files.file_path(given, self.account, self.settings)
        if path in self._paths:
            raise FileError(400, f"path '{printable(path)}' is there twice in one request")
        file = File(path, files.create(path, self.account))
        try:
            file.note(self.metadata, self.mode)
        except FileError:
            file.close()
            raise
        self._paths.add(path)
        told = printable(path)
        entry: Message = {"path": told, "name": os.path.basename(told), "type": "file"}
        self.written.append(entry | {"metadata": self.metadata} if self.metadata else entry)
        return file


def check_type(kind: str, coding: str) -> None:
    """Errors: FileError 415."""
    if kind not in (RAW, FORM):
        raise FileError(415, f"a body of type {kind!r} is not supported, only {RAW} and {FORM}")
    if coding.lower() not in ("", "identity", "gzip"):
        raise FileError(415, f"content encoding {coding!r} is not supported, only gzip")


class File:
    """Sink: one file that is being written. Owns its descriptor. Errors: FileError."""

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd
        self._gathered = bytearray()
        self._is_large = False

    def note(self, metadata: dict[str, str], mode: int | None) -> None:
        """Before the first byte is there."""
        try:
            replace_metadata(self._fd, metadata)
            if mode is not None:
                os.fchmod(self._fd, mode)
        except OSError as error:
            raise files.file_error(error, self._path) from None

    def feed(self, data: bytes) -> None:
        if not self._gathered and len(data) >= (PIECE_BYTES if self._is_large else GATHER_BYTES):
            self._is_large = True
            files.write(self._fd, data, self._path)
            return
        self._gathered += data
        if len(self._gathered) >= GATHER_BYTES:
            self._flush()

    def end(self) -> None:
        self._flush()
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, bytearray()
        self._is_large = len(gathered) >= GATHER_BYTES
        files.write(self._fd, gathered, self._path)


class Form:
    """Sink: the parts of a form; those named `file` are files."""

    def __init__(self, order: Order, boundary: bytes) -> None:
        self._order = order
        self._parser = MultipartParser(boundary)
        self._file: File | None = None

    def feed(self, data: bytes) -> None:
        for event in self._parser.feed(data):
            if isinstance(event, Part):
                if event.name == FORM_FIELD:
                    self._file = self._order.file(self._order.path or event.filename)
            elif self._file is not None:
                if isinstance(event, EndOfPart):
                    self._file.end()
                    self._file = None
                else:
                    self._file.feed(event)

    def end(self) -> None:
        self._parser.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Upload:
    """Handler. Owns the sink."""

    def __init__(self, exchange: Exchange, loop: Loop, access: Access, settings: Settings) -> None:
        self._exchange = exchange
        self._loop = loop
        self._order: Order | None = None
        self._sink: Sink | None = None
        self._packed: Gunzip | None = None
        self._job: Job | None = None
        self._refusal: FileError | None = None
        self._unwanted = 0
        try:
            self._order = Order(exchange, access, settings)
            self._sink = self._order.sink()
            if self._order.is_packed:
                from wrennd.envd.gunzip import Gunzip

                self._packed = Gunzip()
        except FileError as error:
            self._refusal = error

    def data(self, data: bytes) -> None:
        if self._refusal is not None:
            self._unwanted += len(data)
            if self._unwanted > MAX_UNWANTED_BYTES:
                files.fail(self._exchange, self._refusal)
        elif self._packed is not None:
            # A little may unpack to a lot: no more is taken until that is written.
            self._exchange.pause()
            self._job = Job(self._loop, self._unpack(self._packed.feed(data)))
        else:
            self._feed(data)

    def end(self) -> None:
        if self._refusal is None:
            try:
                self._finish()
            except FileError as error:
                self._refusal = error
            except ValueError as error:
                self._refusal = FileError(400, str(error))
        self.closed()
        if self._refusal is not None:
            files.fail(self._exchange, self._refusal)
        elif self._order is not None:
            self._exchange.reply_json(200, self._order.written)

    def drained(self) -> None:
        pass

    def closed(self) -> None:
        if self._job is not None:
            self._job.close()
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def _finish(self) -> None:
        """Errors: FileError, ValueError."""
        if self._packed is not None:
            self._packed.close()
        if self._sink is not None:
            self._sink.end()

    def _unpack(self, pieces: Iterator[bytes]) -> Steps:
        try:
            for piece in pieces:
                self._feed(piece)
                if self._refusal is not None:
                    break
                yield None
        except ValueError as error:
            self._refuse(FileError(400, str(error)))
        self._exchange.resume()

    def _feed(self, data: bytes) -> None:
        if self._sink is None:
            return
        try:
            self._sink.feed(data)
        except FileError as error:
            self._refuse(error)
        except MultipartError as error:
            self._refuse(FileError(400, str(error)))

    def _refuse(self, error: FileError) -> None:
        self._refusal = error
        if self._sink is not None:
            self._sink.close()
            self._sink = None
