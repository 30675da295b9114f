"""One HTTP request passed to a port of a sandbox: both bodies as they come, unbuffered.

A connection for each request: servers in a sandbox come and go, and it is the same machine.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import h11

from wrennd.control import edge_address
from wrennd.control.edge_streams import race

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
READ_BYTES = 64 * 1024
MAX_HEAD_BYTES = 128 * 1024
DIAL_TIMEOUT_S = 5.0
# A forwarder in the guest notices a new listener within a second.
DIAL_PAUSES_S = (0.1, 0.2, 0.4, 0.0)


class PortClosed(Exception):
    """Nothing listens there."""


class NoAnswer(Exception):
    """The sandbox's network says nothing, or what it says is no HTTP."""


@dataclass(frozen=True)
class Passing:
    """What the one who passes a request on is told of: a response that begins, and bytes."""

    begins: Callable[[], None]
    moves: Callable[[], None]


@asynccontextmanager
async def dialled(
    address: str, port: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, ended with the block. Errors: PortClosed, NoAnswer."""
    reader, writer = await _dial(address, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _dial(address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for pause_s in DIAL_PAUSES_S:
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                return await asyncio.open_connection(address, port)
        except ConnectionRefusedError:
            await asyncio.sleep(pause_s)
        except (OSError, TimeoutError) as error:
            raise NoAnswer(f"{address}:{port} can't be reached: {error}") from error
    raise PortClosed


async def forward(
    scope: Any, receive: Receive, send: Send, target: tuple[str, int], passing: Passing
) -> None:
    """Errors: PortClosed, NoAnswer (both before a response began); h11.RemoteProtocolError and
    OSError after."""
    async with dialled(*target) as (reader, writer):
        wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        # Both ways at the same time: a server may answer before it has read all.
        await race(_up(scope, receive, wire, writer, passing), _down(wire, reader, send, passing))


async def _up(
    scope: Any,
    receive: Receive,
    wire: h11.Connection,
    writer: asyncio.StreamWriter,
    passing: Passing,
) -> None:
    """The request. Returns when the client has gone."""
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    writer.write(
        wire.send(
            h11.Request(method=scope["method"], target=target, headers=_request_headers(scope))
        )
        or b""
    )
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        with contextlib.suppress(ConnectionError):  # the response tells why
            if message.get("body"):
                passing.moves()
                writer.write(wire.send(h11.Data(data=message["body"])) or b"")
            if not message.get("more_body"):
                writer.write(wire.send(h11.EndOfMessage()) or b"")
            await writer.drain()
        if not message.get("more_body"):
            break
    while (await receive())["type"] != "http.disconnect":
        pass


def _request_headers(scope: Any) -> edge_address.Headers:
    client = scope["client"][0] if scope.get("client") else ""
    headers = edge_address.to_sandbox(scope["headers"], client=client, scheme=scope["scheme"])
    names = {name.lower() for name, _ in scope["headers"]}
    if b"transfer-encoding" in names and b"content-length" not in names:
        headers.append((b"transfer-encoding", b"chunked"))
    return [*headers, (b"connection", b"close")]


async def _down(
    wire: h11.Connection, reader: asyncio.StreamReader, send: Send, passing: Passing
) -> None:
    """The response."""
    has_begun = False
    try:
        while True:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                wire.receive_data(await reader.read(READ_BYTES))
            elif isinstance(event, h11.Response):
                passing.begins()
                has_begun = True
                headers = edge_address.from_sandbox(event.headers.raw_items())
                await send(
                    {
                        "type": "http.response.start",
                        "status": event.status_code,
                        "headers": headers,
                    }
                )
            elif isinstance(event, h11.Data):
                passing.moves()
                body = {"type": "http.response.body", "body": bytes(event.data), "more_body": True}
                await send(body)
            elif isinstance(event, h11.EndOfMessage):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            elif not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("the connection ended within the response")
    except (h11.RemoteProtocolError, OSError) as error:
        if has_begun:
            raise
        raise NoAnswer(f"the port sent no HTTP response: {error}") from error
