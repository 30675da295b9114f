"""JSON of guests' agents, decoded so that no guest can bring this process down.

The decoder of protobuf-py 0.7 goes into nested values without a bound and overflows its stack,
which ends the process: between 5,000 and 20,000 levels. What is nested deeper than Python's own
decoder follows (1,000) is refused before.
"""

import json
from typing import TypeVar

from connectrpc.codec import Codec, proto_json_codec
from protobuf import Message

DEEP = 500  # so many brackets are not worth a look
M = TypeVar("M", bound=Message)


class ShallowJson:
    """A Codec, as the library's, for what is not nested beyond reason."""

    def __init__(self) -> None:
        self._codec: Codec[Message, Message] = proto_json_codec()

    def name(self) -> str:
        return self._codec.name()

    def encode(self, message: Message) -> bytes:
        return self._codec.encode(message)

    def decode(self, data: bytes | bytearray, message_class: type[M]) -> M:
        """Errors: ValueError."""
        if data.count(b"[") + data.count(b"{") > DEEP:
            try:
                json.loads(data)
            except RecursionError as error:
                raise ValueError("JSON that is nested beyond reason") from error
        found = self._codec.decode(data, message_class)
        assert isinstance(found, message_class), "the library decodes what it is asked for"
        return found
