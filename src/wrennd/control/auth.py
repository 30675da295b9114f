"""Who asks: API keys of requests and WebSockets, and what a revoked one still has open."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.datastructures import Headers

from wrennd.control.store import keys
from wrennd.control.store.database import Database
from wrennd.control.store.keys import DEFAULT_PROJECT
from wrennd.control.store.rows import KeyRow
from wrennd.core.errors import Forbidden, Unauthorized, Unavailable

USED_EVERY_S = 60.0
HINT = "send X-API-Key: e2b_..., or Authorization: Bearer e2b_..."

# What the OpenAPI document says about keys; `of_headers` reads them.
_HEADER = Depends(APIKeyHeader(name="X-API-Key", auto_error=False))
_BEARER = Depends(HTTPBearer(auto_error=False))


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who a key stands for."""

    project: str
    key_id: str
    name: str

    @property
    def is_admin(self) -> bool:
        return self.project == DEFAULT_PROJECT

    def require_admin(self) -> None:
        """Errors: Forbidden."""
        if not self.is_admin:
            raise Forbidden(
                "this key may not do that", hint=f"use one of the project {DEFAULT_PROJECT}"
            )


def of_headers(headers: Headers) -> str | None:
    """The key that a request carries, in one of the two places."""
    key = headers.get("x-api-key")
    if key:
        return key.strip()
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None


class Authentication:
    """Checks keys against the database, each time: a revoked one stops at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._used: dict[str, float] = {}
        self._open: dict[str, list[Callable[[], None]]] = {}
        self._revoked: set[str] = set()  # since the start

    async def check(self, key: str | None) -> Caller:
        """Errors: Unauthorized, Unavailable."""
        if not key:
            raise Unauthorized("there is no API key with this request", hint=HINT)
        found = await self._database.read(lambda c: keys.find(c, key)) if _is_form(key) else None
        if found is None:
            raise Unauthorized("this API key is unknown or was revoked", hint=HINT)
        await self._mark(found)
        return Caller(project=found.project, key_id=found.id, name=found.name)

    @contextmanager
    def when_revoked(self, caller: Caller, act: Callable[[], None]) -> Iterator[None]:
        """Within the block `act` is called when the caller's key is revoked. It may not fail."""
        acts = self._open.setdefault(caller.key_id, [])
        acts.append(act)
        if caller.key_id in self._revoked:  # since it was checked
            act()
        try:
            yield
        finally:
            acts.remove(act)
            if not acts:
                self._open.pop(caller.key_id, None)

    @contextmanager
    def revocation(self, caller: Caller) -> Iterator[asyncio.Event]:
        """For what stays open: the event is set when the caller's key is revoked."""
        event = asyncio.Event()
        with self.when_revoked(caller, event.set):
            yield event

    async def revoke(self, project: str | None, key_id: str) -> None:
        """One of a project; None: of any. Errors: NotFound."""
        await self._database.run(lambda c: keys.revoke(c, project, key_id))
        self._revoked.add(key_id)
        for act in list(self._open.get(key_id, ())):
            act()

    async def _mark(self, found: KeyRow) -> None:
        """When a key was used last, to the minute; a database that can't write is no reason."""
        now = time.monotonic()
        if now - self._used.get(found.id, float("-inf")) < USED_EVERY_S:
            return
        self._used[found.id] = now
        try:
            await self._database.run(lambda c: keys.mark_used(c, found.id))
        except Unavailable:
            self._used.pop(found.id, None)


def _is_form(key: str) -> bool:
    return keys.KEY.fullmatch(key) is not None


async def authenticated(
    request: Request, _header: Annotated[Any, _HEADER], _bearer: Annotated[Any, _BEARER]
) -> Caller:
    """The dependency of routes. Errors: Unauthorized."""
    authentication: Authentication = request.app.state.services.authentication
    caller = await authentication.check(of_headers(request.headers))
    request.state.caller = caller
    return caller
