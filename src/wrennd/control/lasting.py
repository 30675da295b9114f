"""Requests that may last, and what breaks them off: commands, and files on their way.

A route whose caller is a `LastingCallerOf` (`routes/parameters.py`) ends when the caller's key is
revoked, and a while after its sandbox has ended, where nobody reads what comes. What was not
answered yet is answered with the reason; else the connection is cut, so that nothing ends as if it
were whole.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from wrennd.control import http_errors
from wrennd.control.edge_streams import TRANSPORT, reset
from wrennd.control.limits import App, Message, Receive, Scope, Send
from wrennd.core.errors import Error

LASTING = "lasting"


class Lasting:
    """One request. `held` is left with it."""

    def __init__(self, limit: asyncio.Timeout, held: ExitStack) -> None:
        self._limit = limit
        self.held = held
        self.reason: Error | None = None

    def break_off(self, reason: Error) -> None:
        """At once; may be called again. Errors: none, also when it is over."""
        if self.reason is None:
            self.reason = reason
            self._limit.reschedule(asyncio.get_running_loop().time())


class BreakingOff:
    """ASGI middleware: makes every request one that can be broken off."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        with ExitStack() as held:
            limit = asyncio.timeout(None)
            lasting = scope.setdefault("state", {})[LASTING] = Lasting(limit, held)
            try:
                async with limit:
                    await self._app(scope, receive, noting)
            except TimeoutError:
                if lasting.reason is None:
                    raise
                await _end(scope, receive, None if has_begun else send, lasting.reason)


async def _end(
    scope: Scope, receive: Receive, send: Callable[[Message], Awaitable[None]] | None, reason: Error
) -> None:
    """send: None if the answer has begun."""
    if send is not None:
        answer = http_errors.answer(scope["path"], reason.status, reason.to_wire())
        await answer(scope, receive, send)
        return
    transport: Any = scope["state"].get(TRANSPORT)
    if transport is not None:
        reset(transport)
        await asyncio.sleep(0)  # the server notices: an answer that is not whole is no fault then
