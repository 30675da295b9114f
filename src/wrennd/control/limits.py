"""What a request's body may be: how long, and how slow. How slowly an answer may be read. And how
requests are counted.

A request that is answered before its body was read (413, 401) is read on for a while, so that its
sender, who reads nothing before he is through, gets the answer instead of a broken connection.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

from fastapi import HTTPException

from wrennd.control.edge_streams import TRANSPORT, reset
from wrennd.control.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON_BYTES = 1 << 20
UPLOAD_BYTES = 100_000_000
FORM_BYTES = 1 << 20  # of an upload, beside the file
TAKEN_S = 120.0
DRAIN_BYTES = 256 << 20
DRAIN_S, DRAIN_IDLE_S = 10.0, 1.0
WHOLE_IN = 4  # times the longest pause: so long a body that is short may take in all


def limit_of(method: str, path: str) -> int | None:
    """How many bytes a request's body may have; None: as many as the sandbox's disk takes."""
    if path.endswith("/files/stream/write") or (method == "PUT" and path.endswith("/files")):
        return None
    if path.endswith("/files/write"):
        return UPLOAD_BYTES + FORM_BYTES
    return JSON_BYTES


class BodyLimit:
    """ASGI middleware: 413 for what is too long, 408 for what stops arriving or trickles.

    taken_s: a client that does not read an answer's next piece for so long is cut off.
    """

    def __init__(self, app: App, *, idle_s: float, taken_s: float = TAKEN_S) -> None:
        self._app = app
        self._idle_s = idle_s
        self._taken_s = taken_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, limit_of(scope["method"], scope["path"]), self._idle_s)
        body.expect(scope)

        async def send_after(message: Message) -> None:
            if message["type"] == "http.response.start" and body.is_coming:
                await body.drain()
                # Who goes on sending after the answer would keep the connection for ever.
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            with self._read_in_time(scope):
                await send(message)

        await self._app(scope, body.receive, send_after)

    @contextmanager
    def _read_in_time(self, scope: Scope) -> Iterator[None]:
        """The end of the connection wakes who sends, and tells the application that nobody reads:
        it ends as when a client leaves.
        """
        transport = (scope.get("state") or {}).get(TRANSPORT)
        if transport is None:
            yield
            return
        late = asyncio.get_running_loop().call_later(self._taken_s, reset, transport)
        try:
            yield
        finally:
            late.cancel()


class _Body:
    """The body of one request as it arrives."""

    def __init__(self, receive: Receive, limit: int | None, idle_s: float) -> None:
        self._receive = receive
        self._limit = limit
        self._idle_s = idle_s
        self._count = 0
        self._has_more = False
        self._is_late = False
        self.is_too_long = False
        is_short = limit is not None and limit <= JSON_BYTES
        self._until = time.monotonic() + WHOLE_IN * idle_s if is_short else math.inf

    @property
    def is_coming(self) -> bool:
        """Whether some of it has not been read."""
        return self._has_more

    def expect(self, scope: Scope) -> None:
        """Don't wait for what is announced to be too long."""
        for name, value in scope["headers"]:
            if name == b"content-length":
                self._has_more = int(value) > 0
                self.is_too_long = self._limit is not None and int(value) > self._limit
            elif name == b"transfer-encoding":
                self._has_more = True

    async def receive(self) -> Message:
        if self.is_too_long:
            self._refuse()
        if not self._has_more:
            return await self._receive()  # the caller's leaving
        try:
            async with asyncio.timeout(min(self._idle_s, self._until - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            self._is_late = True
            raise HTTPException(408, "this request's body does not arrive") from None
        self._note(message)
        if self.is_too_long:
            self._refuse()
        return message

    async def drain(self) -> None:
        """Read on for a while; not of who is too slow already."""
        if self._is_late:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while self._has_more and self._count < DRAIN_BYTES:
                    async with asyncio.timeout(DRAIN_IDLE_S):
                        self._note(await self._receive())

    def _note(self, message: Message) -> None:
        self._count += len(message.get("body", b""))
        self._has_more = bool(message.get("more_body", False))
        if self._limit is not None and self._count > self._limit:
            self.is_too_long = True

    def _refuse(self) -> None:
        raise HTTPException(413, f"this request may have {self._limit} bytes of body")


class Counting:
    """ASGI middleware: each request's time until its answer began, by its route."""

    def __init__(self, app: App, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.requests.labels(
                    scope["method"] if route != "none" else "", route, message["status"]
                ).observe(time.monotonic() - started)
            await send(message)

        await self._app(scope, receive, send_counted)
