"""The proxy: requests for a port of a sandbox are passed to it, all others to the application.

It is the outermost part, so nothing of the application (its limits, its errors, its keys) touches
what is a sandbox's. Anybody who knows a sandbox's name may use its ports, as with any server; the
guest agent's port wants the agent's own token, and its control routes are not there.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import h11

from wrennd.control import edge_http, edge_websocket
from wrennd.control.edge_address import BadAddress, Wanted, find, is_control
from wrennd.control.edge_http import NoAnswer, Passing, PortClosed, Receive, Send
from wrennd.control.edge_streams import Stream, Streams
from wrennd.control.edge_websocket import Refused

log = logging.getLogger(__name__)
App = Callable[[Any, Receive, Send], Awaitable[None]]
TOUCH_EVERY_S = 5.0


class Backend(Protocol):
    """What the proxy must know of sandboxes."""

    async def find_address(self, sandbox_id: str) -> str:
        """Where this machine reaches it. "": there is none, or it does not run."""

    def touch(self, sandbox_id: str) -> None:
        """Something passes: it is in use. Called at most every few seconds for each."""


class Edge:
    """ASGI. `domain`: below it are the names of sandboxes' ports, `{port}-{id}.{domain}`."""

    def __init__(self, app: App, backend: Backend, domain: str) -> None:
        self._app = app
        self._backend = backend
        self._domain = domain
        self._streams = Streams()
        self._touched: dict[str, float] = {}

    def cut(self, sandbox_id: str) -> None:
        """It does not run any more: end all that passes to it, at once."""
        self._touched.pop(sandbox_id, None)
        self._streams.cut(sandbox_id)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            wanted = find(scope["headers"], self._domain)
        except BadAddress as error:
            await _answer(scope, send, 400, str(error).encode(), b"text/plain; charset=utf-8")
            return
        if wanted is None:
            await self._app(scope, receive, send)
        elif is_control(wanted.port, scope["path"]):
            # Before it is looked for: the answer says nothing about which sandboxes there are.
            said = "This route of the guest agent is reserved for its host"
            await _tell(scope, send, 404, message=said, path=scope["path"])
        else:
            await self._pass(scope, receive, send, wanted)

    async def _pass(self, scope: Any, receive: Receive, send: Send, wanted: Wanted) -> None:
        with self._streams.one(wanted.sandbox_id, scope) as stream:
            try:
                await self._passed(scope, receive, send, wanted, stream)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not stream.is_cut or task is None:
                    raise
                task.uncancel()
                if not stream.has_begun:
                    await _not_found(scope, send, wanted)
            except (h11.RemoteProtocolError, OSError) as broken:
                # In the middle of a response: cut, so that it doesn't look whole.
                log.info("a response of a sandbox broke off", extra={"error": str(broken)})
                stream.reset()

    async def _passed(
        self, scope: Any, receive: Receive, send: Send, wanted: Wanted, stream: Stream
    ) -> None:
        address = await self._backend.find_address(wanted.sandbox_id)
        if not address:
            await _not_found(scope, send, wanted)
            return
        self._touch(wanted.sandbox_id)
        passing = Passing(stream.begin, lambda: self._touch(wanted.sandbox_id))
        way = edge_http if scope["type"] == "http" else edge_websocket
        try:
            await way.forward(scope, receive, send, (address, wanted.port), passing)
        except PortClosed:
            said = "The sandbox is running but port is not open"
            await _tell(
                scope, send, 502, sandboxId=wanted.sandbox_id, message=said, port=wanted.port
            )
        except NoAnswer as error:
            await _tell(scope, send, 504, sandboxId=wanted.sandbox_id, message=str(error))
        except Refused as refused:
            await _answer(scope, send, refused.status, refused.body, b"text/plain; charset=utf-8")

    def _touch(self, sandbox_id: str) -> None:
        now = time.monotonic()
        if now - self._touched.get(sandbox_id, 0.0) >= TOUCH_EVERY_S:
            self._touched[sandbox_id] = now
            self._backend.touch(sandbox_id)


async def _not_found(scope: Any, send: Send, wanted: Wanted) -> None:
    """502 means this to clients, and nothing else may be answered with it but a closed port."""
    said = "The sandbox was not found"
    await _tell(scope, send, 502, sandboxId=wanted.sandbox_id, message=said)


async def _tell(scope: Any, send: Send, status: int, **fields: Any) -> None:
    body = json.dumps({**fields, "code": status}).encode()
    await _answer(scope, send, status, body, b"application/json")


async def _answer(scope: Any, send: Send, status: int, body: bytes, kind: bytes) -> None:
    """Also to a WebSocket's handshake, where the server can."""
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if scope["type"] == "http":
        prefix = "http.response"
    elif "websocket.http.response" in scope.get("extensions", {}):
        prefix = "websocket.http.response"
    else:
        await send({"type": "websocket.close", "code": 1011})
        return
    await send({"type": f"{prefix}.start", "status": status, "headers": headers})
    await send({"type": f"{prefix}.body", "body": body})
