"""The Connect protocol, JSON codec: error codes, envelopes, bodies. Pure.

A message of a stream is an envelope: one byte of flags, four of length (big endian), the JSON.
The last one has the flag END and holds `{}` or the error. Compression is not offered.
"""

from __future__ import annotations

from wrennd.envd import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.jsontext import Json

UNARY_TYPE = "application/json"
STREAM_TYPE = "application/connect+json"
MAX_MESSAGE_BYTES = 4 << 20

HTTP_STATUS = {
    "canceled": 499,
    "unknown": 500,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "internal": 500,
    "unavailable": 503,
    "data_loss": 500,
    "unauthenticated": 401,
}

COMPRESSED = 0x01
END = 0x02
_HEAD = 5


class RpcError(Exception):
    """An error that the caller is told: a Connect code and a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        return HTTP_STATUS[self.code]

    def to_json(self) -> dict[str, Json]:
        return {"code": self.code, "message": self.message}


def envelope_head(size: int, flags: int = 0) -> bytes:
    return bytes((flags,)) + size.to_bytes(4, "big")


def envelope(payload: bytes, flags: int = 0) -> bytes:
    return envelope_head(len(payload), flags) + payload


def end_envelope(error: RpcError | None) -> bytes:
    body = {} if error is None else {"error": error.to_json()}
    return envelope(jsontext.encode(body).encode(), END)


def error_body(error: RpcError) -> bytes:
    """The body of a failed unary call."""
    return jsontext.encode(error.to_json()).encode()


def decode_message(payload: bytes | bytearray) -> dict[str, Json]:
    """Errors: RpcError invalid_argument."""
    try:
        return jsontext.decode_object(payload)
    except ValueError as error:
        raise RpcError("invalid_argument", f"the message is not a JSON object: {error}") from None


class EnvelopeReader:
    """Cuts a stream of bytes into messages, however it was split on its way.

    Errors: RpcError for an envelope that is too long, compressed or of unknown flags. Lengths
    are checked before anything is kept.
    """

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max = max_message_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes."""
        self._buffer += data
        messages = []
        while (length := self._length()) is not None and len(self._buffer) >= _HEAD + length:
            messages.append(bytes(self._buffer[_HEAD : _HEAD + length]))
            del self._buffer[: _HEAD + length]
        return messages

    def close(self) -> None:
        """The stream is over. Errors: RpcError when that is in the middle of a message."""
        if self._buffer:
            raise RpcError("invalid_argument", "the stream ended inside a message")

    def _length(self) -> int | None:
        if len(self._buffer) < _HEAD:
            return None
        flags = self._buffer[0]
        if flags & COMPRESSED:
            raise RpcError("unimplemented", "compressed messages are not supported")
        if flags:
            raise RpcError("invalid_argument", f"unknown flags {flags:#04x} in an envelope")
        length = int.from_bytes(self._buffer[1:_HEAD], "big")
        if length > self._max:
            raise RpcError(
                "resource_exhausted", f"a message of {length} bytes exceeds the {self._max} allowed"
            )
        return length


def check_headers(headers: dict[str, str], *, stream: bool) -> None:
    """Refuse a protocol version or compression that is not ours. Errors: RpcError."""
    version = headers.get("connect-protocol-version", "1")
    if version != "1":
        raise RpcError("invalid_argument", f"connect-protocol-version must be 1, not {version!r}")
    name = "connect-content-encoding" if stream else "content-encoding"
    encoding = headers.get(name, "identity")
    if encoding not in ("", "identity"):
        raise RpcError("unimplemented", f"compression {encoding!r} is not supported")


def timeout_s(headers: dict[str, str]) -> float | None:
    """The call's time limit; None when there is none. Errors: RpcError."""
    text = headers.get("connect-timeout-ms", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise RpcError("invalid_argument", f"connect-timeout-ms must be a number, not {text!r}")
    return int(text) / 1000 or None
