"""multipart/form-data: a body's bytes to its parts, however they were split on their way. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Events = list["Part | bytes | EndOfPart"]

MAX_BOUNDARY_BYTES = 70
MAX_HEAD_BYTES = 16 << 10
MAX_PREAMBLE_BYTES = 16 << 10
MAX_PARTS = 10_000


class MultipartError(ValueError):
    """The body is not what its type says."""


class Part:
    """The head of a part; its bytes follow, and then END."""

    __slots__ = ("filename", "name")

    def __init__(self, name: str, filename: str) -> None:
        self.name = name
        self.filename = filename


class EndOfPart:
    """The part is complete."""


END = EndOfPart()


def boundary_of(content_type: str) -> bytes:
    """Errors: MultipartError."""
    boundary = parameters(content_type).get("boundary", "")
    raw = boundary.encode("utf-8", "surrogateescape")
    if not 0 < len(raw) <= MAX_BOUNDARY_BYTES:
        raise MultipartError("the content type names no boundary of 1 to 70 characters")
    return raw


class MultipartParser:
    """Feed it bytes, get what they complete: Part, its bytes as they come, END, and again.

    Errors: MultipartError.
    """

    def __init__(self, boundary: bytes) -> None:
        # The first delimiter may do without the line end that begins all others.
        self._buffer = bytearray(b"\r\n")
        self._delimiter = b"\r\n--" + boundary
        self._step: Callable[[Events], bool] = self._preamble
        self._parts = 0

    def feed(self, data: bytes) -> Events:
        self._buffer += data
        events: Events = []
        while self._step(events):
            pass
        return events

    def close(self) -> None:
        """The body is over. Errors: MultipartError when its last delimiter is missing."""
        if self._step != self._epilogue:
            raise MultipartError("the body ended before its last boundary")

    def _preamble(self, _events: Events) -> bool:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            if len(self._buffer) > MAX_PREAMBLE_BYTES:
                raise MultipartError("the body does not begin with its boundary")
            return False
        del self._buffer[: at + len(self._delimiter)]
        self._step = self._after_delimiter
        return True

    def _after_delimiter(self, _events: Events) -> bool:
        """Behind a delimiter: the line's end, or the two hyphens of the last one."""
        if self._buffer.startswith(b"--"):
            self._buffer.clear()
            self._step = self._epilogue
            return False
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > MAX_BOUNDARY_BYTES:
                raise MultipartError("a boundary is not alone on its line")
            return False
        if self._buffer[:end].strip(b" \t"):
            raise MultipartError("a boundary is not alone on its line")
        # The line's end stays: a part without headers has its blank line right here.
        del self._buffer[:end]
        self._step = self._head
        return True

    def _head(self, events: Events) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if (len(self._buffer) if end < 0 else end) > MAX_HEAD_BYTES:
            raise MultipartError(f"the head of a part exceeds {MAX_HEAD_BYTES} bytes")
        if end < 0:
            return False
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise MultipartError(f"the body has more than {MAX_PARTS} parts")
        events.append(parse_head(bytes(self._buffer[:end])))
        # Again the line's end stays: the part may be empty, and the delimiter begins with it.
        del self._buffer[: end + 2]
        self._step = self._first
        return True

    def _first(self, events: Events) -> bool:
        if len(self._buffer) < len(self._delimiter):
            return False
        if not self._buffer.startswith(self._delimiter):
            del self._buffer[:2]
        self._step = self._body
        return True

    def _body(self, events: Events) -> bool:
        at = self._buffer.find(self._delimiter)
        if at >= 0:
            if at:
                events.append(bytes(self._buffer[:at]))
            events.append(END)
            del self._buffer[: at + len(self._delimiter)]
            self._step = self._after_delimiter
            return True
        # What may be the beginning of a delimiter waits for more.
        safe = len(self._buffer) - len(self._delimiter) + 1
        if safe > 0:
            events.append(bytes(self._buffer[:safe]))
            del self._buffer[:safe]
        return False

    def _epilogue(self, _events: Events) -> bool:
        self._buffer.clear()
        return False


def parse_head(head: bytes) -> Part:
    """A part without a name has an empty one."""
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon and name.strip().lower() == b"content-disposition":
            found = parameters(value.decode("utf-8", "surrogateescape"))
            filename = found.get("filename", "")
            if "filename*" in found:
                filename = _extended(found["filename*"]) or filename
            return Part(found.get("name", ""), filename)
    return Part("", "")


def parameters(value: str) -> dict[str, str]:
    """The parameters behind a header's value: `form-data; name="file"; filename="a b"`."""
    found: dict[str, str] = {}
    rest = value.partition(";")[2]
    while rest:
        name, equals, rest = rest.partition("=")
        name = name.rpartition(";")[2].strip().lower()
        if not equals:
            break
        rest = rest.lstrip(" \t")
        if rest.startswith('"'):
            text, rest = _quoted(rest[1:])
        else:
            text, _, rest = rest.partition(";")
            text = text.strip(" \t")
            rest = ";" + rest
        found.setdefault(name, text)
    return found


def _quoted(text: str) -> tuple[str, str]:
    """A quoted string's value and what follows it. Browsers write quotes and line ends as %XX."""
    value = []
    at = 0
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and text[at + 1 : at + 2] in ('"', "\\"):
            at += 1
        value.append(text[at])
        at += 1
    plain = "".join(value)
    for code, character in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n")):
        plain = plain.replace(code, character)
    return plain, text[at + 1 :]


def _extended(value: str) -> str:
    """RFC 5987: UTF-8''percent-encoded."""
    from wrennd.envd.http import percent_decode

    charset, _, rest = value.partition("'")
    text = rest.partition("'")[2]
    return percent_decode(text) if charset.lower() == "utf-8" and text.isascii() else ""
