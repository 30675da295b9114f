"""One WebSocket passed to a port of a sandbox, message for message, both ways at the same time."""

import contextlib
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from wrennd.control import edge_address
from wrennd.control.edge_http import NoAnswer, Passing, PortClosed, Receive, Send
from wrennd.control.edge_streams import race

OPEN_TIMEOUT_S = 30.0
MAX_MESSAGE_BYTES = 16 << 20
GOING_AWAY, NOTHING_SAID, LOST = 1001, 1005, 1006


class Refused(Exception):
    """The port answered the handshake with another status."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


async def forward(
    scope: Any, receive: Receive, send: Send, target: tuple[str, int], passing: Passing
) -> None:
    """Errors: PortClosed, NoAnswer, Refused, all before it was accepted."""
    if (await receive())["type"] != "websocket.connect":
        return
    upstream = await _connected(scope, target)
    async with upstream:
        passing.begins()
        chosen = upstream.subprotocol
        await send({"type": "websocket.accept", "subprotocol": chosen, "headers": []})
        await race(_up(receive, upstream, passing), _down(upstream, send, passing))


async def _connected(scope: Any, target: tuple[str, int]) -> ClientConnection:
    client = scope["client"][0] if scope.get("client") else ""
    headers = edge_address.to_sandbox(scope["headers"], client=client, scheme=scope["scheme"])
    query = scope["query_string"].decode("latin-1")
    path = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    host = next((value for name, value in headers if name == b"host"), b"sandbox")
    try:
        return await connect(
            f"ws://{host.decode('latin-1')}{path}",
            host=target[0],
            port=target[1],
            additional_headers=[
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in headers
                if name != b"host" and not name.startswith(b"sec-websocket-")
            ],
            subprotocols=[Subprotocol(name) for name in scope.get("subprotocols", ())] or None,
            user_agent_header=None,
            compression=None,
            proxy=None,
            open_timeout=OPEN_TIMEOUT_S,
            max_size=MAX_MESSAGE_BYTES,
            ping_interval=None,  # whether the client is there is for the server's own pings
        )
    except ConnectionRefusedError as error:
        raise PortClosed from error
    except InvalidStatus as error:
        raise Refused(error.response.status_code, bytes(error.response.body or b"")) from error
    except (OSError, TimeoutError, InvalidHandshake) as error:
        raise NoAnswer(f"no WebSocket at {target[0]}:{target[1]}: {error}") from error


async def _up(receive: Receive, upstream: ClientConnection, passing: Passing) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code") or NOTHING_SAID
            await upstream.close(code if _may_be_sent(code) else GOING_AWAY)
            return
        passing.moves()
        text = message.get("text")
        with contextlib.suppress(ConnectionClosed):  # the other way tells how
            await upstream.send(message["bytes"] if text is None else text)


async def _down(upstream: ClientConnection, send: Send, passing: Passing) -> None:
    try:
        while True:
            message = await upstream.recv()
            passing.moves()
            kind = "text" if isinstance(message, str) else "bytes"
            await send({"type": "websocket.send", kind: message})
    except ConnectionClosed as error:
        code = error.rcvd.code if error.rcvd else LOST
        reason = error.rcvd.reason if error.rcvd else ""
        told = code if _may_be_sent(code) else (1000 if code == NOTHING_SAID else 1011)
        await send({"type": "websocket.close", "code": told, "reason": reason})


def _may_be_sent(code: int) -> bool:
    """1005, 1006 and 1015 only say how a connection ended (RFC 6455, 7.4.1)."""
    return code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= code <= 4999
