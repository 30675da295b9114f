"""What passes through to sandboxes now, so that a sandbox's end ends it at once.

A stream is cut by an RST of its client's connection (a FIN would look like an orderly end) and the
cancellation of its task.
"""

import asyncio
import contextlib
import socket
import struct
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

TRANSPORT = "wrenn.transport"
# On, and 0 s: close sends RST.
LINGER_NONE = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport) -> None:
    """End a connection at once: what was written and not sent is dropped."""
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
    transport.abort()


class EdgeProtocol(H11Protocol):
    """uvicorn's, that tells the application which connection a request came by."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, TRANSPORT: transport}
        super().connection_made(transport)


class Stream:
    """One request or WebSocket that is passed on."""

    def __init__(self, task: "asyncio.Task[Any]", transport: asyncio.Transport | None) -> None:
        self._task = task
        self._transport = transport
        self.is_cut = False
        self.has_begun = False

    def begin(self) -> None:
        """The client has been told that something comes."""
        self.has_begun = True

    def cut(self) -> None:
        """May be called twice."""
        if not self.is_cut:
            self.is_cut = True
            if self.has_begun:
                self.reset()
            self._task.cancel()

    def reset(self) -> None:
        """End the client's connection, without any answer."""
        if self._transport is not None:
            reset(self._transport)


class Streams:
    """By sandbox. For one event loop."""

    def __init__(self) -> None:
        self._by_sandbox: dict[str, set[Stream]] = defaultdict(set)

    @contextmanager
    def one(self, sandbox_id: str, scope: Any) -> Iterator[Stream]:
        """The current task's, until the block's end."""
        task = asyncio.current_task()
        assert task is not None, "a stream is handled by a task"
        stream = Stream(task, (scope.get("state") or {}).get(TRANSPORT))
        streams = self._by_sandbox[sandbox_id]
        streams.add(stream)
        try:
            yield stream
        finally:
            streams.discard(stream)
            if not streams:
                self._by_sandbox.pop(sandbox_id, None)

    def cut(self, sandbox_id: str) -> None:
        for stream in list(self._by_sandbox.get(sandbox_id, ())):
            stream.cut()

    def count(self, sandbox_id: str) -> int:
        return len(self._by_sandbox.get(sandbox_id, ()))


async def race(*ways: Coroutine[Any, Any, None]) -> None:
    """Go all ways until the first comes to its end, or fails; the others are broken off."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
