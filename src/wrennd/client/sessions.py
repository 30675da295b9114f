"""A command that runs while its input and output pass by: a WebSocket, for both clients."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import websockets.asyncio.client
import websockets.sync.client
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from wrennd.client import frames, http
from wrennd.client.frames import Begun, Opening, Ping
from wrennd.client.http import Server
from wrennd.core.errors import Error, Unavailable
from wrennd.core.model import TerminalSize
from wrennd.core.sandboxes import Exit, Output

OPEN_S = 30.0  # what is done in a sandbox that starts waits for it (docs/api.md)
CLOSE_S = 5.0
MAX_FRAME_BYTES = 16 << 20
CANT_CONNECT = (OSError, TimeoutError, InvalidHandshake, InvalidURI)


def _options(server: Server) -> dict[str, Any]:
    return {
        "additional_headers": {"X-API-Key": server.api_key},
        "user_agent_header": server.headers["User-Agent"],
        "open_timeout": OPEN_S,
        "close_timeout": CLOSE_S,
        "max_size": MAX_FRAME_BYTES,
        "compression": None,  # mostly on one machine
        **({"proxy": None} if server.is_local else {}),
    }


def _why_not(server: Server, error: Exception) -> Error:
    if isinstance(error, InvalidStatus):
        return http.error_of(error.response.status_code, bytes(error.response.body or b""))
    return http.unreachable(server, error)


def _lost() -> Unavailable:
    return Unavailable(
        "the connection to the command was lost",
        hint="the server may have been restarted, or the sandbox destroyed; a command ends with "
        "its connection",
    )


class BlockingSession:
    """As `core.sandboxes.Running`. `begun`: once its first event was read."""

    def __init__(
        self, connection: "websockets.sync.client.ClientConnection", opening: Opening
    ) -> None:
        self._connection = connection
        self._is_terminal = opening.is_terminal
        self.begun: Begun | None = None

    @classmethod
    @contextmanager
    def open(cls, server: Server, opening: Opening) -> "Iterator[BlockingSession]":
        """Errors: Unavailable, and what the server refuses with."""
        url = server.websocket_url(opening.path)
        try:
            connection = websockets.sync.client.connect(url, **_options(server))
        except CANT_CONNECT as error:
            raise _why_not(server, error) from error
        with connection:
            session = cls(connection, opening)
            session._send(opening.first)
            yield session

    def events(self) -> Iterator[Output | Exit]:
        """Everything it writes, then exactly one Exit. Errors: those of `core.errors`."""
        while True:
            try:
                event = frames.read(self._connection.recv())
            except ConnectionClosed as error:
                raise _lost() from error
            if isinstance(event, Begun):
                self.begun = event
            elif isinstance(event, Ping):
                self._send(frames.PONG)
            elif event is not None:
                yield event
                if isinstance(event, Exit):
                    return

    def send_stdin(self, data: bytes) -> bool:
        """False when the command takes no more."""
        return self._send(frames.stdin(data, is_terminal=self._is_terminal))

    def close_stdin(self) -> None:
        if not self._is_terminal:
            self._send(frames.STDIN_CLOSE)

    def resize(self, size: TerminalSize) -> None:
        self._send(frames.resize(size))

    def kill(self) -> None:
        self._send(frames.kill(is_terminal=self._is_terminal))

    def _send(self, frame: str | bytes) -> bool:
        try:
            self._connection.send(frame)
        except ConnectionClosed:  # its end is told by the events
            return False
        return True


class AsyncSession:
    """As `BlockingSession`, to be awaited."""

    def __init__(
        self, connection: "websockets.asyncio.client.ClientConnection", opening: Opening
    ) -> None:
        self._connection = connection
        self._is_terminal = opening.is_terminal
        self.begun: Begun | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, server: Server, opening: Opening) -> "AsyncIterator[AsyncSession]":
        """Errors: Unavailable, and what the server refuses with."""
        url = server.websocket_url(opening.path)
        try:
            connection = await websockets.asyncio.client.connect(url, **_options(server))
        except CANT_CONNECT as error:
            raise _why_not(server, error) from error
        async with connection:
            session = cls(connection, opening)
            await session._send(opening.first)
            yield session

    async def events(self) -> AsyncIterator[Output | Exit]:
        """Everything it writes, then exactly one Exit. Errors: those of `core.errors`."""
        while True:
            try:
                event = frames.read(await self._connection.recv())
            except ConnectionClosed as error:
                raise _lost() from error
            if isinstance(event, Begun):
                self.begun = event
            elif isinstance(event, Ping):
                await self._send(frames.PONG)
            elif event is not None:
                yield event
                if isinstance(event, Exit):
                    return

    async def send_stdin(self, data: bytes) -> bool:
        """False when the command takes no more."""
        return await self._send(frames.stdin(data, is_terminal=self._is_terminal))

    async def close_stdin(self) -> None:
        if not self._is_terminal:
            await self._send(frames.STDIN_CLOSE)

    async def resize(self, size: TerminalSize) -> None:
        await self._send(frames.resize(size))

    async def kill(self) -> None:
        await self._send(frames.kill(is_terminal=self._is_terminal))

    async def _send(self, frame: str | bytes) -> bool:
        try:
            await self._connection.send(frame)
        except ConnectionClosed:
            return False
        return True
