"""/v1/events/stream: what happens in a project, as server-sent events of the older shape."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from wrennd.control.auth import Caller
from wrennd.control.bus import Listener, Told
from wrennd.control.routes.capsules import capsule_shape
from wrennd.control.routes.parameters import CallerOf, ServicesOf, failures
from wrennd.control.services import Services
from wrennd.control.shapes import to_time

KEEPALIVE_S = 15.0
# Our operations by the names that the older API's clients know.
KINDS = {
    "create": "capsule.create",
    "forked": "capsule.create",
    "pause": "capsule.pause",
    "resume": "capsule.resume",
    "destroy": "capsule.destroy",
    "snapshot": "template.snapshot.create",
    "template.snapshot.delete": "template.snapshot.delete",
}
OTHER = "capsule.state.changed"

router = APIRouter(tags=["events"])


@router.get(
    "/v1/events/stream",
    response_class=StreamingResponse,
    responses={**failures(), 200: {"content": {"text/event-stream": {}}}},
)
async def stream(caller: CallerOf, services: ServicesOf) -> StreamingResponse:
    """From now on, until the caller leaves or its key is revoked."""
    return StreamingResponse(
        _events(services, caller),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(services: Services, caller: Caller) -> AsyncIterator[str]:
    with (
        services.bus.listen(caller.project) as listener,
        services.authentication.revocation(caller) as revoked,
    ):
        yield _frame("connected", {"event": "connected"})
        while not revoked.is_set():
            told = await _next(listener, revoked)
            if told is None:
                return
            yield _frame(*_shape(told)) if isinstance(told, Told) else ":keepalive\n\n"


async def _next(listener: Listener, revoked: asyncio.Event) -> "Told | str | None":
    """What comes next; "" when nothing did for a while, None at the end."""
    waits = [asyncio.create_task(listener.get()), asyncio.create_task(revoked.wait())]
    try:
        done, _ = await asyncio.wait(
            waits, timeout=KEEPALIVE_S, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            return ""
        found = next(iter(done)).result()
        return found if isinstance(found, Told) else None
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _shape(told: Told) -> tuple[str, dict[str, Any]]:
    event = told.event
    kind = KINDS.get(event.kind, OTHER)
    at = to_time(event.at_ms)
    body: dict[str, Any] = {
        "event": kind,
        "resource": {"id": event.sandbox or event.data.get("name", ""), "type": "sandbox"},
        "actor": {"type": "system", "id": "", "name": ""},
        "metadata": _metadata(event.data),
        "timestamp": at.isoformat() if at else None,
    }
    if kind != OTHER:
        is_ok = event.data.get("result") == "ok"
        body["outcome"] = "success" if is_ok else "error"
        if not is_ok:
            body["error"] = event.data.get("error", "")
    if told.sandbox is not None:
        body["sandbox"] = capsule_shape(told.sandbox).model_dump(mode="json")
    return kind, body


def _metadata(data: dict[str, Any]) -> dict[str, str]:
    return {name: str(data[name]) for name in ("from", "to", "reason") if data.get(name)}


def _frame(kind: str, body: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(body)}\n\n"
