"""HTTP/1.1 of a server: bytes to requests and replies to bytes. Pure, no I/O.

What comes in is hostile: every length has a limit that is checked before anything is kept, and
what could be read in two ways (two lengths, a length and chunks, folded headers, bare line ends)
is refused. After a ParseError the parser is done for: answer with its status, then close.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 100
MAX_CHUNK_LINE_BYTES = 4 << 10
MAX_LENGTH_DIGITS = 18

REASONS = {
    100: "Continue",
    200: "OK",
    204: "No Content",
    206: "Partial Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    417: "Expectation Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    499: "Client Closed Request",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
    507: "Insufficient Storage",
}

_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_VISIBLE = frozenset(range(0x21, 0x7F))
_CONTROLS = bytes(set(range(0x20)) - {0x09} | {0x7F})
_HEX = frozenset(b"0123456789abcdefABCDEF")


class ParseError(Exception):
    """The client broke the protocol: the status to answer with, and why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Request:
    """The head of a request. Header names are lower case; repeated ones are joined by commas."""

    __slots__ = ("headers", "keep_alive", "method", "minor", "path", "query", "target")

    def __init__(self, method: str, target: str, minor: int, headers: dict[str, str]) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.headers = headers
        path, _, self.query = target.partition("?")
        self.path = percent_decode(path)
        options = [part.strip() for part in headers.get("connection", "").lower().split(",")]
        self.keep_alive = "close" not in options if minor else "keep-alive" in options

    @property
    def expects_continue(self) -> bool:
        return self.minor > 0 and self.headers.get("expect", "").lower() == "100-continue"


class EndOfMessage:
    """The body of the current request is complete."""


END = EndOfMessage()


class RequestParser:
    """Feed it bytes, ask it for events: Request, bytes of its body, END, and again.

    `next_event` returns None when more bytes are needed. Body bytes are handed on as they come.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Body bytes that came while nothing was buffered: handed on as they are, not copied.
        self._direct = b""
        self._step: Callable[[], Request | bytes | EndOfMessage | None] = self._head
        self._left = 0
        self._scanned = 0
        self._trailer_bytes = 0

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not yet handed on."""
        return len(self._buffer) + len(self._direct)

    @property
    def is_idle(self) -> bool:
        """Between two requests: nothing of the next one has come."""
        return self._step == self._head and not self._buffer

    @property
    def is_in_head(self) -> bool:
        return self._step == self._head

    def feed(self, data: bytes) -> None:
        start = 0
        if self._left and not self._buffer and not self._direct:
            self._direct = data[: self._left]
            start = len(self._direct)
        if start < len(data):
            self._buffer += memoryview(data)[start:]

    def next_event(self) -> Request | bytes | EndOfMessage | None:
        """Errors: ParseError."""
        return self._step()

    def _line(self, limit: int, status: int, what: str) -> bytes | None:
        """The next line without its end, or None while it is incomplete."""
        end = self._buffer.find(b"\n", self._scanned)
        if (len(self._buffer) if end < 0 else end) > limit:
            raise ParseError(status, f"{what} is longer than {limit} bytes")
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        self._scanned = 0
        if not line.endswith(b"\r\n"):
            raise ParseError(400, f"{what} does not end with CR LF")
        return line[:-2]

    def _head(self) -> Request | None:
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
            self._scanned = 0
        end = self._buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if (len(self._buffer) if end < 0 else end) > MAX_HEAD_BYTES:
            raise ParseError(431, f"the request's head is longer than {MAX_HEAD_BYTES} bytes")
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        self._scanned = 0
        method, target, minor = parse_request_line(lines[0])
        request = Request(method, target, minor, parse_headers(lines[1:]))
        self._begin_body(request)
        return request

    def _begin_body(self, request: Request) -> None:
        coding = request.headers.get("transfer-encoding")
        length = request.headers.get("content-length")
        if coding is not None:
            if length is not None:
                raise ParseError(400, "both Content-Length and Transfer-Encoding are given")
            if coding.lower() != "chunked" or not request.minor:
                raise ParseError(501, f"transfer coding {coding[:40]!r} is not supported")
            self._step = self._chunk_size
        elif length is not None:
            self._left = parse_length(length)
            self._step = self._sized
        else:
            self._step = self._end

    def _end(self) -> EndOfMessage:
        self._step = self._head
        self._trailer_bytes = 0
        return END

    def _take(self) -> bytes:
        data, self._direct = self._direct, b""
        if not data:
            with memoryview(self._buffer) as view:
                data = bytes(view[: self._left])
            del self._buffer[: len(data)]
        self._left -= len(data)
        return data

    def _sized(self) -> bytes | EndOfMessage | None:
        if not self._left:
            return self._end()
        return self._take() or None

    def _chunk_size(self) -> Request | bytes | EndOfMessage | None:
        line = self._line(MAX_CHUNK_LINE_BYTES, 400, "the line of a chunk")
        if line is None:
            return None
        digits = line.split(b";", 1)[0].strip(b" \t")
        if not digits or len(digits) > 15 or not _HEX.issuperset(digits):
            raise ParseError(400, "the size of a chunk is not a hexadecimal number")
        self._left = int(digits, 16)
        self._step = self._chunk if self._left else self._trailers
        return self._step()

    def _chunk(self) -> Request | bytes | EndOfMessage | None:
        if self._left:
            return self._take() or None
        if len(self._buffer) < 2:
            return None
        if self._buffer[:2] != b"\r\n":
            raise ParseError(400, "a chunk does not end with CR LF")
        del self._buffer[:2]
        self._step = self._chunk_size
        return self._step()

    def _trailers(self) -> EndOfMessage | None:
        while (line := self._line(MAX_HEAD_BYTES, 431, "a trailer")) is not None:
            if not line:
                return self._end()
            self._trailer_bytes += len(line)
            if self._trailer_bytes > MAX_HEAD_BYTES:
                raise ParseError(431, f"the trailers are longer than {MAX_HEAD_BYTES} bytes")
        return None


def parse_request_line(line: bytes) -> tuple[str, str, int]:
    """Method, target and minor version. Errors: ParseError."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise ParseError(400, "the request line is not 'METHOD TARGET VERSION'")
    method, target, version = parts
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        is_http = version.startswith(b"HTTP/")
        raise ParseError(505 if is_http else 400, "the version is neither HTTP/1.1 nor HTTP/1.0")
    if not method or not _TOKEN.issuperset(method):
        raise ParseError(400, "the method is not a token")
    if not target or not _VISIBLE.issuperset(target):
        raise ParseError(400, "the target has characters that must be percent-encoded")
    return method.decode(), origin_form(target.decode()), int(version[-1:])


def origin_form(target: str) -> str:
    """The path and query of a target that may be an absolute URL."""
    if target.startswith("/") or target == "*":
        return target
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() != "http":
        raise ParseError(400, "the target is neither a path nor a URL")
    cut = min([at for at in (rest.find("/"), rest.find("?")) if at >= 0], default=len(rest))
    return rest[cut:] if rest[cut : cut + 1] == "/" else "/" + rest[cut:]


def parse_headers(lines: list[bytes]) -> dict[str, str]:
    """Errors: ParseError."""
    if len(lines) > MAX_HEADERS:
        raise ParseError(431, f"there are more than {MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or not _TOKEN.issuperset(name):
            raise ParseError(400, "a header is not 'Name: value'")
        if len(value.translate(None, _CONTROLS)) != len(value):
            raise ParseError(400, "a header's value has control characters")
        key = name.decode().lower()
        text = value.strip(b" \t").decode("latin-1")
        if key not in headers:
            headers[key] = text
        elif key != "content-length" or headers[key] != text:
            headers[key] += "," + text
    return headers


def parse_length(text: str) -> int:
    """Errors: ParseError."""
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_LENGTH_DIGITS):
        raise ParseError(400, "Content-Length is not one number")
    return int(text)


def percent_decode(text: str) -> str:
    """Undecodable bytes become surrogates, as in Python's file names."""
    if "%" not in text:
        return text
    head, *rest = text.encode("latin-1").split(b"%")
    out = bytearray(head)
    for part in rest:
        if len(part) >= 2 and _HEX.issuperset(part[:2]):
            out.append(int(part[:2], 16))
            out += part[2:]
        else:
            out += b"%" + part
    return out.decode("utf-8", "surrogateescape")


def parse_query(query: str) -> dict[str, str]:
    """The first value of each name of a query string; `+` is a space."""
    values: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.replace("+", " ").partition("=")
        if name:
            values.setdefault(percent_decode(name), percent_decode(value))
    return values


def reply_head(status: int, headers: list[tuple[str, str]]) -> bytes:
    """The head of a reply, ready to send. Values are ours, and checked to be one line."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    head = "\r\n".join(lines)
    assert head.count("\n") == len(headers)
    return head.encode("latin-1") + b"\r\n\r\n"


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(parts: tuple[bytes, ...]) -> bytes:
    """The parts as one chunk."""
    size = sum([len(part) for part in parts])
    return b"".join((b"%x\r\n" % size, *parts, b"\r\n"))
