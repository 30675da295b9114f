"""Clients' connections, as uvicorn serves them, with ends for what uvicorn would wait for.

- A request's head must be complete in HEAD_S, from the connection's beginning or the end of the
  request before it: a client that sends a byte now and then holds nothing.
- A WebSocket whose client answers no ping, or does not take what closes it, is reset: uvicorn would
  wait until all that was written before is read, and nobody reads.
"""

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from wrennd.control.edge_streams import EdgeProtocol, reset

HEAD_S = 30.0
CLOSE_S = 10.0  # for the client's answer to our closing frame
# A machine that is gone without a word is noticed after a minute, also on a quiet connection.
KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}


def keep_alive(listening: socket.socket) -> None:
    """For the connections that it takes, which inherit it."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        listening.setsockopt(socket.IPPROTO_TCP, option, value)


class Connection(EdgeProtocol):
    """HTTP. head_s: how long a request's head may take."""

    def __init__(self, *args: Any, head_s: float = HEAD_S, **more: Any) -> None:
        super().__init__(*args, **more)
        self._head_s = head_s
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_head()
        else:
            self._head_came()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._head_s, self._head_is_late)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()


class Socket(WebSocketsSansIOProtocol):
    """A WebSocket."""

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        if self.transport.get_write_buffer_size():
            reset(self.transport)

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close" and not self.writable.is_set():
            reset(self.transport)  # what was written before is not taken, nor would this be
            return
        await super().send(message)
        if message["type"] == "websocket.close" and self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(CLOSE_S, self.transport.abort)
