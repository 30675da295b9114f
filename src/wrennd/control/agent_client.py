"""The host agent as the control plane calls it: the generated client over a Unix socket.

Its methods raise errors of core/errors.py. The library's own transport knows no Unix sockets, so
httpx's carries the bytes. Calls that change something carry an idempotency key; how long each may
take is the caller's to say (`timeout_ms`).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from connectrpc.errors import ConnectError
from connectrpc.request import RequestContext
from pyqwest import Client, Headers, Request, Response

from wrennd.control.agent_errors import NotConnected, late, to_error
from wrennd.core.errors import Unavailable
from wrennd.gen.hostagent.hostagent_connect import HostAgentServiceClient

BASE = "http://agent"  # of a Unix socket: it only has to look like a URL
CONNECT_S = 5.0
PIECE_S = 60.0
MAX_CONNECTIONS = 512  # each stream and WebSocket has one
MAX_MESSAGE_BYTES = 64 << 20  # an exec's output is two times 16 MiB at most

T = TypeVar("T")


class AgentClient:
    """`rpc` is the generated client. Owns the connections, until `close()`."""

    def __init__(self, socket: Path) -> None:
        self._transport = SocketTransport(socket)
        self.rpc = HostAgentServiceClient(
            BASE,
            accept_compression=(),
            send_compression=None,
            read_max_bytes=MAX_MESSAGE_BYTES,
            interceptors=(_Errors(),),
            http_client=Client(self._transport),
        )

    async def close(self) -> None:
        await self._transport.close()


async def paced(messages: AsyncIterator[T], seconds: float = PIECE_S) -> AsyncIterator[T]:
    """The same messages, of which each must come in time. Errors: Unavailable."""
    async with closing(messages):
        while True:
            try:
                async with asyncio.timeout(seconds):
                    message = await anext(messages)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise Unavailable(f"the host agent sent nothing for {seconds:g} s") from None
            yield message


def closing(messages: AsyncIterator[Any]) -> "aclosing[AsyncGenerator[Any, None]]":
    """A call's stream that ends with the block: the agent notices. They all are generators."""
    assert isinstance(messages, AsyncGenerator)
    return aclosing(messages)


class SocketTransport:
    """pyqwest's seam for transports, over httpx's for a Unix socket."""

    def __init__(self, socket: Path) -> None:
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=16)
        self._http = httpx.AsyncHTTPTransport(uds=str(socket), limits=limits)

    async def execute(self, request: Request) -> Response:
        sent = httpx.Request(
            request.method,
            request.url,
            headers=list(request.headers.items()),
            content=request.content,
            # No read timeout: how long an answer may take is the caller's to say.
            extensions={"timeout": {"connect": CONNECT_S, "pool": CONNECT_S}},
        )
        try:
            answer = await self._http.handle_async_request(sent)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotConnected(str(error)) from error
        return Response(
            status=answer.status_code,
            headers=Headers(answer.headers.multi_items()),
            content=_Body(answer),
        )

    async def close(self) -> None:
        await self._http.aclose()


class _Body:
    """An answer's content; closing it early closes the connection, which the agent notices."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer
        self._chunks = answer.aiter_raw()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        await self._chunks.aclose()  # type: ignore[attr-defined]  # it is a generator
        await self._answer.aclose()


class _Errors:
    """Turns every call's failure into one of ours."""

    async def intercept_unary(
        self, call_next: Callable[[Any, Any], Awaitable[Any]], request: Any, ctx: Any, /
    ) -> Any:
        """The deadline is ours: the library waits by wait_for, which on Python 3.11 swallows a
        cancellation that comes when the answer is there (python/cpython#86296).
        """
        plain = RequestContext(
            method=ctx.method, http_method=ctx.http_method, request_headers=ctx.request_headers
        )
        seconds = None if ctx.timeout_ms is None else ctx.timeout_ms / 1000
        try:
            async with asyncio.timeout(seconds):
                with _translated():
                    return await call_next(request, plain)
        except TimeoutError:
            raise late() from None

    async def intercept_client_stream(
        self, call_next: Callable[[Any, Any], Awaitable[Any]], request: Any, ctx: Any, /
    ) -> Any:
        with _translated():
            return await call_next(request, ctx)

    async def intercept_server_stream(
        self, call_next: Callable[[Any, Any], AsyncIterator[Any]], request: Any, ctx: Any, /
    ) -> AsyncIterator[Any]:
        with _translated():
            messages = call_next(request, ctx)
            async with closing(messages):
                async for message in messages:
                    yield message


@contextmanager
def _translated() -> Iterator[None]:
    """The library answers a cancellation with an error of its own: that would be swallowed."""
    try:
        yield
    except ConnectError as error:
        if isinstance(error.__cause__, asyncio.CancelledError):
            raise error.__cause__ from None
        raise to_error(error) from error
