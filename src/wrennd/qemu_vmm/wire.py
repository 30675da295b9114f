"""The API's HTTP, pure: bytes in, requests and errors out, and responses as bytes.

It is micro-http's dialect, which Firecracker's clients see: four methods, an empty reason phrase,
keep-alive always, a body if and only if Content-Length says so (chunks are not decoded), parse
errors as JSON under `error` with a raw newline in it. Knows no sockets and no routes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

MAX_LINE = 1024  # a line with its CRLF
DEFAULT_MAX_BODY = 51_200
MAX_CONNECTIONS = 10
SERVER_FULL = (
    b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\nContent-Length: 40\r\n\r\n"
    b'{ "error": "Too many open connections" }'
)
_U32 = re.compile(r"\+?[0-9]+")
_SCHEME = "http://"


class Method(StrEnum):
    GET = "GET"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"


@dataclass(frozen=True, kw_only=True)
class Request:
    """`path` is the absolute path, query and all; `body` is None when there is none."""

    method: Method
    path: str
    body: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Continue:
    """The client waits for an interim response before it sends the body."""

    version: str


@dataclass(frozen=True, kw_only=True)
class ParseError:
    """What was received is no request. Requests before it that are unanswered are dropped."""

    text: str

    def to_response(self) -> bytes:
        dropped = "All previous unanswered requests will be dropped."
        return respond(400, f'{{ "error": "{self.text}\n{dropped}" }}'.encode())


Event = Request | Continue | ParseError


class _Bad(Exception):
    pass


class Parser:
    """Requests of one connection. `feed` takes what came, in pieces of any size."""

    def __init__(self, max_body: int = DEFAULT_MAX_BODY) -> None:
        self._max_body = max_body
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._has_headers = False

    def feed(self, data: bytes) -> list[Event]:
        """Events in order. After a ParseError what is left of `data` is thrown away. The next
        bytes go on where it was: when a header was wrong, with more headers of that request."""
        self._buffer += data
        events: list[Event] = []
        try:
            for event in self._events():
                events.append(event)
        except _Bad as error:
            self._buffer.clear()
            events.append(ParseError(text=str(error)))
        return events

    def _reset(self) -> None:
        self._head, self._has_headers = None, False

    def _events(self) -> Iterator[Event]:
        while True:
            if self._head is None or not self._has_headers:
                line = self._take_line()
                if line is None:
                    return
                yield from self._line(line)
            else:
                size = self._head.content_length
                if len(self._buffer) < size:
                    return
                body = bytes(self._buffer[:size])
                del self._buffer[:size]
                yield self._head.request(body or None)
                self._reset()

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, MAX_LINE)
        if end >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            return line
        if len(self._buffer) < MAX_LINE:
            return None
        if self._head is None:
            raise _Bad("Invalid request.")
        text = self._buffer[:MAX_LINE].decode(errors="replace")
        raise _Bad(f"Invalid header. Reason: Invalid content length. Header: {text}")

    def _line(self, line: bytes) -> Iterator[Event]:
        if self._head is None:
            self._head = _request_line(line)
            return
        if line:
            self._head.add(line)
            return
        size = self._head.content_length
        if size > self._max_body:
            raise _Bad(
                f"Request payload with size {size} is larger than the limit of {self._max_body} "
                "allowed by server."
            )
        if size and self._head.expects_continue:
            yield Continue(version=self._head.version)
        self._has_headers = True


class _Head:
    """A request line and the headers that matter, so far."""

    def __init__(self, method: Method, path: str, version: str) -> None:
        self.method, self.path, self.version = method, path, version
        self.content_length = 0
        self.expects_continue = False

    def request(self, body: bytes | None) -> Request:
        return Request(method=self.method, path=self.path, body=body)

    def add(self, line: bytes) -> None:
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            where = f"invalid utf-8 sequence of 1 bytes from index {error.start}"
            raise _Bad(
                f"Invalid header. Reason: Header contains invalid characters. Key: {where}"
            ) from None
        name, colon, value = text.partition(":")
        if not colon:
            raise _Bad(f"Invalid header. Reason: Header is incorrectly formatted. Key: {name}")
        match name.strip().lower():
            case "content-length":
                self.content_length = _length(name, value)
            case "expect":
                self.expects_continue |= value.strip() == "100-continue"
            case "accept-encoding":
                _check_encodings(value.strip())


def _request_line(line: bytes) -> _Head:
    parts = line.split(b" ", 2)
    if len(parts) != 3:
        raise _Bad("Invalid request.")
    method, uri, version = parts
    if method.decode("latin-1") not in list(Method):
        raise _Bad("Invalid HTTP Method: Unsupported HTTP method.")
    if not uri:
        raise _Bad("Invalid URI: Empty URI not allowed.")
    try:
        text = uri.decode()
    except UnicodeDecodeError:
        raise _Bad("Invalid URI: Cannot parse URI as UTF-8.") from None
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise _Bad("Invalid HTTP Version: Unsupported HTTP version.")
    return _Head(Method(method.decode()), absolute_path(text), version.decode())


def absolute_path(uri: str) -> str:
    """The path of `http://host/path` or `/path`; empty when there is none."""
    if uri.startswith(_SCHEME):
        _, slash, path = uri.removeprefix(_SCHEME).partition("/")
        return slash + path
    return uri if uri.startswith("/") else ""


def _length(name: str, value: str) -> int:
    text = value.strip()
    if not _U32.fullmatch(text) or len(text) > 32 or int(text) >= 1 << 32:
        raise _invalid_value(name, value)
    return int(text)


def _check_encodings(value: str) -> None:
    if not value:
        raise _Bad("Invalid request.")
    for encoding in value.split(","):
        refuses_all = encoding.strip() == "*;q=0" and "identity" not in value
        if refuses_all or encoding.strip() == "identity;q=0":
            raise _invalid_value("Accept-Encoding", encoding)


def _invalid_value(name: str, value: str) -> _Bad:
    return _Bad(f"Invalid header. Reason: Invalid value. Key:{name}; Value:{value}")


def respond(
    status: int, body: bytes = b"", *, deprecated: bool = False, version: str = "HTTP/1.1"
) -> bytes:
    """A response. 204 and 100 say nothing about a body."""
    lines = [f"{version} {status} ", "Server: Firecracker API", "Connection: keep-alive"]
    if deprecated:
        lines.append("Deprecation: true")
    if status not in (100, 204):
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def interim(event: Continue) -> bytes:
    return respond(100, version=event.version)
