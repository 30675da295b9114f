"""Connections of this machine, led to a port of a sandbox.

On the server's own machine they go straight to the sandbox. From elsewhere each is one HTTP request
(a WebSocket is one, too) to the server's proxy, which is told by two headers where it belongs.
"""

import asyncio
import contextlib
import re
import ssl
import urllib.parse

from wrennd.client.http import Server

READ_BYTES = 64 * 1024
MAX_HEAD_BYTES = 64 * 1024
# Each connection is one request: only its head is ours to change.
KEPT_OPEN = re.compile(rb"\r\nconnection:[^\r\n]*", re.IGNORECASE)
UPGRADE = re.compile(rb"\r\nupgrade:\s*websocket", re.IGNORECASE)
NOBODY = b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Forwarding:
    """`accepted` is what `asyncio.start_server` calls."""

    def __init__(self, server: Server, sandbox_id: str, address: str, port: int) -> None:
        self._server = server
        self._address = address
        self.sandbox_id = sandbox_id
        self.port = port

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                if self._server.is_local:
                    await self._straight(reader, writer)
                else:
                    await self._by_proxy(reader, writer)
            except OSError:
                writer.write(NOBODY if not self._server.is_local else b"")
            except asyncio.CancelledError:
                # The command ends. This is the task's outermost frame, and up to Python 3.11 a
                # task of asyncio.start_server that ends cancelled is reported with a traceback.
                pass
        writer.close()

    async def _straight(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection(self._address, self.port)
        await _both(reader, to_there, there, writer)

    async def _by_proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        parsed = urllib.parse.urlsplit(self._server.base_url)
        is_tls = parsed.scheme == "https"
        there, to_there = await asyncio.open_connection(
            parsed.hostname,
            parsed.port or (443 if is_tls else 80),
            ssl=ssl.create_default_context() if is_tls else None,
        )
        to_there.write(self.headed(head))
        await _both(reader, to_there, there, writer)

    def headed(self, head: bytes) -> bytes:
        """A request's head with where it belongs. Errors: ConnectionError for one too long."""
        if len(head) > MAX_HEAD_BYTES:
            raise ConnectionError("a request's head is too long")
        ours = f"\r\nE2b-Sandbox-Id: {self.sandbox_id}\r\nE2b-Sandbox-Port: {self.port}".encode()
        if not UPGRADE.search(head):
            head = KEPT_OPEN.sub(b"", head)
            ours += b"\r\nConnection: close"
        line, rest = head.split(b"\r\n", 1)
        return line + ours + b"\r\n" + rest


async def _both(
    reader: asyncio.StreamReader,
    to_there: asyncio.StreamWriter,
    there: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Both ways, until both have ended."""
    try:
        await asyncio.gather(_one(reader, to_there), _one(there, writer))
    finally:
        to_there.close()


async def _one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
