"""A WebSocket of a caller: who it is, its frames, and the ends that it may come to.

It ends with what it shows, when its client leaves, when its key is revoked, a while
after its sandbox has ended (where nobody reads that), and with the server.
Frames of clients are JSON objects in text frames; of a terminal's, binary ones as well.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from wrennd.control import http_errors
from wrennd.control.auth import Caller, of_headers
from wrennd.control.services import Services, of_connection
from wrennd.core.errors import Error, Forbidden, InvalidInput, Unauthorized

NORMAL, POLICY, BROKEN = 1000, 1008, 1011

log = logging.getLogger(__name__)

Frame = dict[str, Any] | bytes


@dataclass(frozen=True)
class Session:
    """A WebSocket that was accepted. `is_older`: it speaks as /v1/capsules does."""

    websocket: WebSocket
    services: Services
    caller: Caller

    @property
    def is_older(self) -> bool:
        return http_errors.is_under(self.websocket.url.path, http_errors.CAPSULES)

    async def send(self, frame: dict[str, Any]) -> None:
        await self.websocket.send_text(json.dumps(frame))

    async def send_bytes(self, data: bytes) -> None:
        await self.websocket.send_bytes(data)

    async def send_error(self, error: Error, **more: Any) -> None:
        code = error.code
        if self.is_older:
            code = http_errors.OLDER_CODES.get(code, code)
        await self.send({"type": "error", "data": str(error), "code": code, **more})

    async def frames(self) -> AsyncIterator[Frame]:
        """What the client sends, until it leaves. Errors: InvalidInput for what is no frame."""
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("bytes") is not None:
                yield message["bytes"]
            else:
                yield parse_frame(message["text"])

    async def first(self) -> dict[str, Any]:
        """The frame that says what is wanted. Errors: InvalidInput, WebSocketDisconnect."""
        seconds = self.services.settings.bounds.body_s
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for frame in self.frames():
                    if isinstance(frame, bytes):
                        raise InvalidInput("the first frame is JSON in a text frame")
                    return frame
                raise WebSocketDisconnect
        raise InvalidInput(f"no frame came for {seconds:g} s")


def parse_frame(text: str) -> dict[str, Any]:
    """Errors: InvalidInput."""
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        frame = None
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise InvalidInput("a frame is a JSON object with a type")
    return frame


class Cut(Exception):
    """A WebSocket is ended, with a code and a reason for its client."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


Show = Callable[[Session, str], Coroutine[Any, Any, None]]


async def serve(websocket: WebSocket, sandbox_id: str, show: Show) -> None:
    """Let `show(session, sandbox_id)` have the WebSocket, once its caller is known and may."""
    services = of_connection(websocket)
    try:
        session = await _opened(websocket, services)
    except Error as error:
        await _refuse(websocket, error)
        return
    except WebSocketDisconnect:
        return
    services.metrics.sockets.inc()
    try:
        with (
            services.authentication.revocation(session.caller) as revoked,
            services.ends.of(sandbox_id) as ended,
        ):
            last_s = services.settings.bounds.last_s
            await _shown(session, show(session, sandbox_id), _cut(revoked, ended, last_s))
    finally:
        services.metrics.sockets.dec()


async def _opened(websocket: WebSocket, services: Services) -> Session:
    """Errors: Unauthorized, Forbidden, WebSocketDisconnect."""
    _check_origin(websocket)
    key = of_headers(websocket.headers)
    if key is not None:
        caller = await services.authentication.check(key)
        await websocket.accept()
        return Session(websocket, services, caller)
    await websocket.accept()
    seconds = services.settings.bounds.auth_frame_s
    try:
        async with asyncio.timeout(seconds):
            frame = parse_frame(await websocket.receive_text())
    except (TimeoutError, KeyError, InvalidInput):
        raise Unauthorized(f"no frame with an API key came within {seconds:g} s") from None
    token = frame.get("token")
    if frame["type"] != "auth" or not isinstance(token, str):
        raise Unauthorized("the first frame has no API key")
    return Session(websocket, services, await services.authentication.check(token))


def _check_origin(websocket: WebSocket) -> None:
    """Pages of other origins, and sandboxes' own, can't use a visitor's way to this server."""
    origin = websocket.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != websocket.headers.get("host"):
        raise Forbidden("a page of another origin can't open this")


async def _refuse(websocket: WebSocket, error: Error) -> None:
    """As an answer to the upgrade if that is still to come, else as a frame."""
    if websocket.client_state is WebSocketState.CONNECTING:
        wire = error.to_wire()
        await websocket.send_denial_response(
            http_errors.answer(websocket.url.path, error.status, wire)
        )
        return
    with suppress(RuntimeError, WebSocketDisconnect):
        frame = {"type": "error", "data": str(error), "code": error.code, "fatal": True}
        await websocket.send_text(json.dumps(frame))
        await websocket.close(POLICY, str(error)[:120])


async def _cut(revoked: asyncio.Event, ended: asyncio.Event, last_s: float) -> None:
    """Until nothing may be shown any more. Errors: Cut."""
    if await first_of(_until(revoked), _until(ended)):
        raise Cut(POLICY, "this API key was revoked")
    # What shows it ends by itself, with its last frames; but not while its client reads nothing.
    await asyncio.sleep(last_s)
    raise Cut(BROKEN, "the sandbox does not run any more")


async def _shown(
    session: Session, showing: Coroutine[Any, Any, None], cut: Coroutine[Any, Any, None]
) -> None:
    code, reason = NORMAL, ""
    try:
        await first_of(showing, cut)
    except Cut as found:
        code, reason = found.code, found.reason
    except (WebSocketDisconnect, RuntimeError):
        return  # the client left while it was written to
    except Error as error:
        code, reason = POLICY if error.status < 500 else BROKEN, str(error)[:100]
        with suppress(RuntimeError, WebSocketDisconnect):
            await session.send_error(error, fatal=True)
    with suppress(RuntimeError, WebSocketDisconnect):
        await session.websocket.close(code, reason)


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def first_of(main: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> bool:
    """Run both until one ends, and end the other. Whether it was `main` that ended.

    Errors: those of the one that ended.
    """
    tasks = [asyncio.create_task(main), asyncio.create_task(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = next(task for task in tasks if task.done())
        ended.result()
        return ended is tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
