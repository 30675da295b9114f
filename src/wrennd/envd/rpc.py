"""Calls of the Connect protocol over exchanges: unary, server stream, client stream.

A method is a function. It gets a `Call` and a message, and answers through the call, now or
later; what it raises as RpcError is the answer too.
"""

from __future__ import annotations

from wrennd.envd import connect, jsontext
from wrennd.envd.connect import RpcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wrennd.envd.connection import Exchange, Handler
    from wrennd.envd.fields import Message

    UnaryMethod = Callable[["Call", Message], None]
    StreamMethod = Callable[["Stream", Message], None]
    InputMethod = Callable[["Call"], "InputSink"]

    from typing import Protocol

    class InputSink(Protocol):
        """Where the messages of a client stream go."""

        def message(self, message: Message) -> None: ...
        def end(self) -> None: ...


def _nothing() -> None:
    pass


class Call:
    """A call that is answered with one message.

    A reply that is long may go through `exchange` itself, in pieces.
    """

    def __init__(self, exchange: Exchange, *, enveloped: bool = False) -> None:
        self.exchange = exchange
        self._enveloped = enveloped
        self.headers = exchange.request.headers
        self.on_drained: Callable[[], None] = _nothing
        self.on_closed: Callable[[], None] = _nothing

    @property
    def is_answered(self) -> bool:
        return self.exchange.finished

    def reply(self, message: Message) -> None:
        self.reply_text(jsontext.encode(message).encode())

    def reply_text(self, text: bytes) -> None:
        """Answer with a message that is JSON already."""
        if self.is_answered:
            return
        if self._enveloped:
            body = connect.envelope(text) + connect.end_envelope(None)
            self.exchange.reply(200, [("Content-Type", connect.STREAM_TYPE)], body)
        else:
            self.exchange.reply(200, [("Content-Type", connect.UNARY_TYPE)], text)

    def fail(self, error: RpcError) -> None:
        if self.is_answered:
            return
        if self._enveloped:
            body = connect.end_envelope(error)
            self.exchange.reply(200, [("Content-Type", connect.STREAM_TYPE)], body)
        else:
            body = connect.error_body(error)
            self.exchange.reply(error.status, [("Content-Type", connect.UNARY_TYPE)], body)

    def pause(self) -> None:
        self.exchange.pause()

    def resume(self) -> None:
        self.exchange.resume()


class Stream:
    """A call that is answered with a stream of messages.

    Errors go into the stream, never into the HTTP status: some clients read nothing else there.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.headers = exchange.request.headers
        self.on_drained: Callable[[], None] = _nothing
        self.on_closed: Callable[[], None] = _nothing

    @property
    def is_full(self) -> bool:
        return self._exchange.is_full

    def send(self, text: bytes) -> None:
        """One message, as encoded JSON."""
        self._begin()
        self._exchange.write(connect.envelope_head(len(text)), text)

    def end(self, error: RpcError | None = None, last: bytes = b"") -> None:
        """`last` is one more message, that goes out with the end."""
        if not self._exchange.finished:
            self._begin()
            message = connect.envelope(last) if last else b""
            self._exchange.finish(message, connect.end_envelope(error))

    def _begin(self) -> None:
        if not self._exchange.began:
            self._exchange.begin(200, [("Content-Type", connect.STREAM_TYPE)])


class Unary:
    """Handler: collects the body, then calls the method."""

    def __init__(self, exchange: Exchange, method: UnaryMethod) -> None:
        self._call = Call(exchange)
        self._method = method
        self._body = bytearray()

    def data(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > connect.MAX_MESSAGE_BYTES:
            limit = connect.MAX_MESSAGE_BYTES
            self._call.fail(
                RpcError("resource_exhausted", f"the message exceeds the {limit} bytes allowed")
            )

    def end(self) -> None:
        try:
            connect.check_headers(self._call.headers, stream=False)
            self._method(self._call, connect.decode_message(self._body))
        except RpcError as error:
            self._call.fail(error)

    def drained(self) -> None:
        self._call.on_drained()

    def closed(self) -> None:
        self._call.on_closed()


class ServerStream:
    """Handler: takes the one message of the request, then calls the method."""

    def __init__(self, exchange: Exchange, method: StreamMethod) -> None:
        self._stream = Stream(exchange)
        self._method = method
        self._reader = connect.EnvelopeReader()
        self._messages: list[bytes] = []

    def data(self, data: bytes) -> None:
        try:
            self._messages += self._reader.feed(data)
            if len(self._messages) > 1:
                raise RpcError("invalid_argument", "the call takes one message only")
        except RpcError as error:
            self._stream.end(error)

    def end(self) -> None:
        try:
            connect.check_headers(self._stream.headers, stream=True)
            self._reader.close()
            if not self._messages:
                raise RpcError("invalid_argument", "the request has no message")
            self._method(self._stream, connect.decode_message(self._messages.pop()))
        except RpcError as error:
            self._stream.end(error)

    def drained(self) -> None:
        self._stream.on_drained()

    def closed(self) -> None:
        self._stream.on_closed()


class ClientStream:
    """Handler: hands the messages on as they come."""

    def __init__(self, exchange: Exchange, method: InputMethod) -> None:
        self._call = Call(exchange, enveloped=True)
        self._reader = connect.EnvelopeReader()
        self._sink = method(self._call)

    def data(self, data: bytes) -> None:
        try:
            connect.check_headers(self._call.headers, stream=True)
            for message in self._reader.feed(data):
                self._sink.message(connect.decode_message(message))
        except RpcError as error:
            self._call.fail(error)

    def end(self) -> None:
        try:
            self._reader.close()
            self._sink.end()
        except RpcError as error:
            self._call.fail(error)

    def drained(self) -> None:
        pass

    def closed(self) -> None:
        pass


class Service:
    """The methods of one RPC service by name, each with its kind."""

    def __init__(
        self,
        unary: dict[str, UnaryMethod],
        server_stream: dict[str, StreamMethod],
        client_stream: dict[str, InputMethod],
    ) -> None:
        self._unary = unary
        self._server_stream = server_stream
        self._client_stream = client_stream

    def handler(self, exchange: Exchange, name: str) -> Handler:
        """The handler of a call. Unknown methods are `unimplemented`, in the caller's form."""
        if name in self._server_stream:
            return ServerStream(exchange, self._server_stream[name])
        if name in self._client_stream:
            return ClientStream(exchange, self._client_stream[name])
        if name in self._unary:
            return Unary(exchange, self._unary[name])
        return unimplemented(exchange)

    def content_type(self, name: str) -> str:
        """What the body of a call to this method must be; empty for unknown methods."""
        if name in self._server_stream or name in self._client_stream:
            return connect.STREAM_TYPE
        return connect.UNARY_TYPE if name in self._unary else ""


def unimplemented(exchange: Exchange) -> Handler:
    error = RpcError("unimplemented", f"{exchange.request.path} is not implemented")

    def fail_unary(_call: Call, _message: Message) -> None:
        raise error

    def fail_stream(_stream: Stream, _message: Message) -> None:
        raise error

    if exchange.request.headers.get("content-type", "") == connect.STREAM_TYPE:
        return ServerStream(exchange, fail_stream)
    return Unary(exchange, fail_unary)
