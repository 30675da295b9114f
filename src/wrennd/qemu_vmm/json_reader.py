"""JSON read as serde_json reads it: one pass, typed by the caller, errors with line and column.

Clients match on these texts, so the positions are serde_json's too: a line counts newlines before
the byte at which reading stopped, a column counts bytes since the last one.
"""

import re
from typing import NoReturn

from wrennd.qemu_vmm.json_writer import float_text

# What a document holds; objects with their keys in order, as serde_json's own maps are.
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
MAX_DEPTH = 128
_SPACES = re.compile(rb"[ \n\t\r]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*)")
_DIGITS = re.compile(rb"[0-9]+")
_SIGN = re.compile(rb"[+-]?")
_HEX4 = re.compile(rb"[0-9a-fA-F]{4}")
_ESCAPES = {
    ord('"'): '"',
    ord("\\"): "\\",
    ord("/"): "/",
    ord("b"): "\b",
    ord("f"): "\f",
    ord("n"): "\n",
    ord("r"): "\r",
    ord("t"): "\t",
}
_RUST_ESCAPES = {
    "\\": "\\\\",
    '"': '\\"',
    "\0": "\\0",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
_WORDS = {ord("n"): (b"null", None), ord("t"): (b"true", True), ord("f"): (b"false", False)}


class JsonError(Exception):
    """Not JSON, or not what was asked for. `is_placed` once a position is part of it."""

    def __init__(self, text: str, line: int = 0, column: int = 0) -> None:
        self.text, self.line, self.column = text, line, column
        super().__init__(f"{text} at line {line} column {column}" if line else text)

    @property
    def is_placed(self) -> bool:
        return self.line > 0


class Reader:
    """A cursor over the bytes of one document."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.depth = 0

    # Errors

    def error(self, text: str) -> JsonError:
        """At what was consumed last."""
        return self._placed(text, self.at)

    def peek_error(self, text: str) -> JsonError:
        """At the byte that was looked at but not consumed."""
        return self._placed(text, min(len(self.data), self.at + 1))

    def place(self, error: JsonError) -> JsonError:
        return error if error.is_placed else self.error(error.text)

    def _placed(self, text: str, index: int) -> JsonError:
        line = self.data.count(b"\n", 0, index) + 1
        return JsonError(text, line, index - (self.data.rfind(b"\n", 0, index) + 1))

    # Structure

    def peek(self) -> int | None:
        """The next byte that is no white space, or None at the end."""
        match = _SPACES.match(self.data, self.at)
        assert match is not None
        self.at = match.end()
        return self.data[self.at] if self.at < len(self.data) else None

    def peek_value(self) -> int:
        byte = self.peek()
        if byte is None:
            raise self.peek_error("EOF while parsing a value")
        return byte

    def enter(self) -> None:
        """Step over an opening bracket."""
        self.depth += 1
        if self.depth >= MAX_DEPTH:
            raise self.peek_error("recursion limit exceeded")
        self.at += 1

    def next_key(self, *, first: bool) -> str | None:
        """The next key of the object that was entered, or None before its closing brace."""
        byte = self._after_comma(first, ord("}"), "an object", "expected `,` or `}`")
        if byte is None:
            return None
        if byte != ord('"'):
            raise self.peek_error("key must be a string")
        return self.string()

    def _after_comma(self, first: bool, closing: int, what: str, expected: str) -> int | None:
        """Stand on the first byte of the next entry and return it; None before the end."""
        byte = self.peek()
        if byte is None:
            raise self.peek_error(f"EOF while parsing {what}")
        if byte == closing:
            return None
        if first:
            return byte
        if byte != ord(","):
            raise self.peek_error(expected)
        self.at += 1
        byte = self.peek_value()
        if byte == closing:
            raise self.peek_error("trailing comma")
        return byte

    def colon(self) -> None:
        byte = self.peek()
        if byte != ord(":"):
            raise self.peek_error("EOF while parsing an object" if byte is None else "expected `:`")
        self.at += 1

    def leave_object(self) -> None:
        self._leave(ord("}"), "an object")

    def next_item(self, *, first: bool) -> bool:
        """Stand before the next item of the list that was entered; False before its end."""
        return self._after_comma(first, ord("]"), "a list", "expected `,` or `]`") is not None

    def leave_list(self) -> None:
        self._leave(ord("]"), "a list")

    def _leave(self, closing: int, what: str) -> None:
        self.depth -= 1
        byte = self.peek()
        if byte is None:
            raise self.peek_error(f"EOF while parsing {what}")
        if byte != closing:
            text = "trailing comma" if byte == ord(",") else "trailing characters"
            raise self.peek_error(text)
        self.at += 1

    def end(self) -> None:
        """Nothing but white space may follow."""
        if self.peek() is not None:
            raise self.peek_error("trailing characters")

    # Values

    def string(self) -> str:
        """The string whose opening quote is next."""
        self.at += 1
        text = bytearray()
        while True:
            match = _PLAIN.match(self.data, self.at)
            assert match is not None
            self.at = match.end()
            text += match.group()
            if self.at >= len(self.data):
                raise self.error("EOF while parsing a string")
            byte = self.data[self.at]
            self.at += 1
            if byte == ord('"'):
                return self._decoded(text)
            if byte != ord("\\"):
                raise self.error("control character (\\u0000-\\u001F) found while parsing a string")
            text += self._escape().encode()

    def _decoded(self, text: bytearray) -> str:
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise self.error("invalid unicode code point") from None

    def _escape(self) -> str:
        if self.at >= len(self.data):
            raise self.error("EOF while parsing a string")
        byte = self.data[self.at]
        self.at += 1
        if byte != ord("u"):
            if byte not in _ESCAPES:
                raise self.error("invalid escape")
            return _ESCAPES[byte]
        first = self._hex4()
        if not 0xD800 <= first <= 0xDFFF:
            return chr(first)
        if first >= 0xDC00:
            raise self.error("lone leading surrogate in hex escape")
        for expected in b"\\u":
            if self.at >= len(self.data):
                raise self.error("EOF while parsing a string")
            self.at += 1
            if self.data[self.at - 1] != expected:
                raise self.error("unexpected end of hex escape")
        second = self._hex4()
        if not 0xDC00 <= second <= 0xDFFF:
            raise self.error("lone leading surrogate in hex escape")
        return chr(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))

    def _hex4(self) -> int:
        match = _HEX4.match(self.data, self.at)
        if match is None:
            is_cut = self.at + 4 > len(self.data)
            self.at = min(len(self.data), self.at + 4)
            raise self.error("EOF while parsing a string" if is_cut else "invalid escape")
        self.at = match.end()
        return int(match.group(), 16)

    def number(self) -> int | float:
        start = self.at
        match = _INTEGER.match(self.data, self.at)
        if match is None:
            self.at += 1  # the sign
            raise self._no_number(is_consumed=True)
        self.at = match.end()
        if match.group() in (b"0", b"-0") and _DIGITS.match(self.data, self.at):
            raise self._no_number(is_consumed=False)
        has_fraction = self._next_is(b".")
        if has_fraction:
            self._digits(is_consumed=False)
        has_exponent = self._next_is(b"eE")
        if has_exponent:
            sign = _SIGN.match(self.data, self.at)
            assert sign is not None
            self.at = sign.end()
            self._digits(is_consumed=True)
        text = self.data[start : self.at]
        # serde_json keeps what fits 64 bits as an integer and the rest, -0 too, as a float.
        if not has_fraction and not has_exponent and text != b"-0" and len(text) < 40:
            value = int(text)
            if -(1 << 63) <= value < 1 << 64:
                return value
        return self._finite(float(text))

    def _next_is(self, one_of: bytes) -> bool:
        """Step over the next byte if it is one of these."""
        found = self.at < len(self.data) and self.data[self.at] in one_of
        self.at += found
        return found

    def _digits(self, *, is_consumed: bool) -> None:
        match = _DIGITS.match(self.data, self.at)
        if match is None:
            raise self._no_number(is_consumed=is_consumed)
        self.at = match.end()

    def _no_number(self, *, is_consumed: bool) -> JsonError:
        """For the byte that is no digit: whether serde_json reads it, or only looks at it, differs
        from place to place; so does then its column."""
        if self.at >= len(self.data):
            return self.error("EOF while parsing a value")
        if not is_consumed:
            return self.peek_error("invalid number")
        self.at += 1
        return self.error("invalid number")

    def _finite(self, value: float) -> float:
        if value in (float("inf"), float("-inf")):
            raise self.error("number out of range")
        return value

    def word(self, first: int) -> bool | None:
        """`null`, `true` or `false`, whose first byte is `first`."""
        word, value = _WORDS[first]
        for expected in word:
            if self.at >= len(self.data):
                raise self.error("EOF while parsing a value")
            byte = self.data[self.at]
            self.at += 1
            if byte != expected:
                raise self.error("expected ident")
        return value

    def skip(self) -> None:
        """Step over one value of any kind, checking it."""
        byte = self.peek_value()
        if byte == ord("{"):
            self.enter()
            first = True
            while self.next_key(first=first) is not None:
                first = False
                self.colon()
                self.skip()
            self.leave_object()
        elif byte == ord("["):
            self.enter()
            first = True
            while self.next_item(first=first):
                first = False
                self.skip()
            self.leave_list()
        else:
            self._skip_scalar(byte)

    def _skip_scalar(self, byte: int) -> None:
        if byte == ord('"'):
            self.string()
        elif byte in _WORDS:
            self.word(byte)
        elif byte == ord("-") or byte in b"0123456789":
            self.number()
        else:
            raise self.peek_error("expected value")

    def value(self) -> Json:
        """One value of any kind, kept. Of a key that comes twice the last counts."""
        byte = self.peek_value()
        if byte == ord("{"):
            return self._object()
        if byte == ord("["):
            self.enter()
            items: list[Json] = []
            while self.next_item(first=not items):
                items.append(self.value())
            self.leave_list()
            return items
        if byte == ord('"'):
            return self.string()
        if byte in _WORDS:
            return self.word(byte)
        if byte == ord("-") or byte in b"0123456789":
            return self.number()
        raise self.peek_error("expected value")

    def _object(self) -> dict[str, Json]:
        self.enter()
        found: dict[str, Json] = {}
        first = True
        while (key := self.next_key(first=first)) is not None:
            first = False
            self.colon()
            found[key] = self.value()
        self.leave_object()
        return dict(sorted(found.items()))

    def wrong_type(self, expected: str) -> NoReturn:
        """Raise for the value that is next: it is not `expected`."""
        byte = self.peek_value()
        if byte in b"{[":
            unexpected = "map" if byte == ord("{") else "sequence"
        elif byte == ord('"'):
            unexpected = f'string "{_debug(self.string())}"'
        elif byte in _WORDS:
            value = self.word(byte)
            unexpected = "null" if value is None else f"boolean `{str(value).lower()}`"
        elif byte == ord("-") or byte in b"0123456789":
            unexpected = describe_number(self.number())
        else:
            raise self.peek_error("expected value")
        raise self.error(f"invalid type: {unexpected}, expected {expected}")


def describe_number(number: int | float) -> str:
    if isinstance(number, int):
        return f"integer `{number}`"
    return f"floating point `{float_text(number)}`"


def _debug(text: str) -> str:
    """As Rust's {:?} writes the inside of a string."""
    return "".join(
        _RUST_ESCAPES.get(c, c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text
    )
