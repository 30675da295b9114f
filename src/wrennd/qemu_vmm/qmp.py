"""QEMU's monitor protocol, pure: lines of JSON, bounded, sorted into greeting, events, replies.

The other side may be taken over by its guest, so nothing of it is trusted: a line has a longest
length and must be an object, and what is no answer is an event.
"""

import json
from dataclasses import dataclass, field
from typing import Any

MAX_LINE = 1 << 20  # the longest honest answer, query-qmp-schema, is about 200 KiB


class QmpBroken(Exception):
    """QEMU spoke something that is not QMP: it can't be trusted any further."""


class QmpRefused(Exception):
    """QEMU answered a command with an error; the text is its description."""


@dataclass(frozen=True)
class Event:
    """Something that QEMU reports by itself."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """The answer to the command that was sent with `id`. `error` is empty when it succeeded."""

    id: int
    value: Any = None
    error: str = ""


@dataclass(frozen=True)
class Greeting:
    """QEMU is there and waits for `qmp_capabilities`."""

    version: tuple[int, int, int]


Message = Event | Reply | Greeting


class Decoder:
    """Messages out of bytes, in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Errors: QmpBroken."""
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        if len(rest) > MAX_LINE or any(len(line) > MAX_LINE for line in lines):
            raise QmpBroken(f"a line of QEMU's monitor is longer than {MAX_LINE} bytes")
        return [_message(bytes(line)) for line in lines if line.strip()]


def _message(line: bytes) -> Message:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise QmpBroken("QEMU's monitor sent a line that is not JSON") from None
    match value:
        case {"QMP": {"version": {"qemu": {"major": int(a), "minor": int(b), "micro": int(c)}}}}:
            return Greeting((a, b, c))
        case {"event": str(name)}:
            data = value.get("data")
            return Event(name, data if isinstance(data, dict) else {})
        case {"return": result, "id": int(number)}:
            return Reply(number, result)
        case {"error": {"desc": str(text)}, "id": int(number)}:
            return Reply(number, error=text)
    raise QmpBroken("QEMU's monitor sent something that is neither event nor reply")


def encode(command: str, arguments: dict[str, object], number: int) -> bytes:
    message: dict[str, object] = {"execute": command, "id": number}
    if arguments:
        message["arguments"] = arguments
    return json.dumps(message).encode() + b"\n"
