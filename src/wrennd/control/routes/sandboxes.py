"""/v1/sandboxes: their lives, and what is known about them."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from wrennd.control import forks
from wrennd.control.creation import Wanted
from wrennd.control.routes.parameters import (
    ACTS,
    LOOKS,
    CallerOf,
    IdempotencyKey,
    SandboxId,
    ServicesOf,
    failures,
    of_cursor,
    to_cursor,
)
from wrennd.control.shapes import (
    CreateShape,
    EventListShape,
    ExpiryShape,
    ExtendShape,
    ForkedShape,
    ForkShape,
    OperationListShape,
    OperationShape,
    ResumeShape,
    SandboxListShape,
    SandboxShape,
    done_shape,
    event_shape,
    forked_shape,
    sandbox_shape,
)
from wrennd.control.states import RowState
from wrennd.control.store import events, sandboxes
from wrennd.control.store.rows import EventRow, Expiry

MAX_PAGE = 1000
LABEL = "metadata."
STATES = "^(({0})(,({0}))*)?$".format("|".join(RowState))
OPERATIONS = ("create", "pause", "resume", "destroy", "snapshot", forks.OPERATION, forks.OF_CHILD)

router = APIRouter(prefix="/v1/sandboxes", tags=["sandboxes"])
GOES_ON: dict[int | str, dict[str, Any]] = {202: {"model": SandboxShape, "description": "Goes on"}}


@router.post("", status_code=201, responses=ACTS | GOES_ON)
async def create(
    caller: CallerOf,
    services: ServicesOf,
    response: Response,
    body: CreateShape | None = None,
    key: IdempotencyKey = "",
) -> SandboxShape:
    """A new sandbox. 202: it is on its way; what is done inside it meanwhile waits for it."""
    body = body or CreateShape()
    wanted = Wanted(
        template=body.template,
        vcpus=body.vcpus,
        mem_mib=body.memory_mib,
        disk_mib=body.disk_mib,
        env=body.env,
        dns=tuple(body.dns),
        expiry=body.expiry.to_value(),
        labels=body.metadata,
        is_cold=body.cold,
    )
    done = await services.creation.create(caller.project, wanted, key)
    response.status_code = 201 if done.is_done else 202
    response.headers["Location"] = f"/v1/sandboxes/{done.row.id}"
    return done_shape(done)


class ListQuery(BaseModel):
    state: Annotated[str, Field(max_length=200, pattern=STATES, description="joined by ,")] = ""
    template: Annotated[str, Field(max_length=63)] = ""
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100
    cursor: Annotated[str, Field(max_length=200)] = ""


@router.get("", responses=failures())
async def list_sandboxes(
    request: Request, query: Annotated[ListQuery, Query()], caller: CallerOf, services: ServicesOf
) -> SandboxListShape:
    """Newest first. `metadata.KEY=VALUE` in the query finds those with that label."""
    wanted = sandboxes.Filter(
        project=caller.project,
        states=_states(query.state),
        template=query.template,
        labels=_labels(request),
        limit=query.limit,
        after=of_cursor(query.cursor) if query.cursor else None,
    )
    rows = await services.database.read(lambda c: sandboxes.list_page(c, wanted))
    more = to_cursor(rows[-1].created_ms, rows[-1].id) if len(rows) == query.limit else None
    return SandboxListShape(sandboxes=[sandbox_shape(row) for row in rows], next_cursor=more)


def _states(text: str) -> frozenset[RowState]:
    return frozenset(RowState(name) for name in text.split(",") if name)


def _labels(request: Request) -> dict[str, str]:
    query = request.query_params
    return {name.removeprefix(LABEL): query[name] for name in query if name.startswith(LABEL)}


@router.get("/{sandbox_id}", responses=LOOKS)
async def get(sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf) -> SandboxShape:
    """One, also when it is stopped."""
    return sandbox_shape(await services.operations.get(caller.project, sandbox_id))


@router.delete("/{sandbox_id}", status_code=204, responses={**ACTS, 202: {"model": SandboxShape}})
async def destroy(sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf) -> Response:
    """Destroy it, whatever it is doing. Its row stays readable."""
    done = await services.operations.destroy(caller.project, sandbox_id)
    if done.is_done:
        return Response(status_code=204)
    return Response(
        done_shape(done).model_dump_json(), status_code=202, media_type="application/json"
    )


@router.post("/{sandbox_id}/pause", responses=ACTS | GOES_ON)
async def pause(
    sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf, response: Response
) -> SandboxShape:
    """Keep its memory and disk, and free the rest."""
    done = await services.operations.pause(caller.project, sandbox_id)
    response.status_code = 200 if done.is_done else 202
    return done_shape(done)


@router.post("/{sandbox_id}/resume", responses=ACTS | GOES_ON)
async def resume(
    sandbox_id: SandboxId,
    caller: CallerOf,
    services: ServicesOf,
    response: Response,
    body: ResumeShape | None = None,
) -> SandboxShape:
    """Let it go on where it was paused."""
    body = body or ResumeShape()
    done = await services.operations.resume(
        caller.project,
        sandbox_id,
        cold=body.cold,
        discard=body.discard,
        expiry=body.expiry.to_value() if body.expiry else None,
    )
    response.status_code = 200 if done.is_done else 202
    return done_shape(done)


@router.post("/{sandbox_id}/fork", status_code=201, responses=ACTS | {202: {"model": ForkedShape}})
async def fork(
    sandbox_id: SandboxId,
    caller: CallerOf,
    services: ServicesOf,
    response: Response,
    body: ForkShape | None = None,
    key: IdempotencyKey = "",
) -> ForkedShape:
    """New sandboxes that go on where this one is; it goes on, too, or stays paused.

    Each child has its own end. 202: some are on their way.
    """
    body = body or ForkShape()
    wanted = forks.Wanted(
        count=body.count,
        expiry=body.expiry.to_value() if body.expiry else None,
        labels=body.metadata,
    )
    forked = await services.forks.fork(caller.project, sandbox_id, wanted, key)
    response.status_code = 201 if forked.is_done else 202
    return forked_shape(forked)


@router.post("/{sandbox_id}/extend", responses=ACTS)
async def extend(
    sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf, body: ExtendShape
) -> SandboxShape:
    """Set when it expires, or the seconds alone; with neither, its time begins anew."""
    row = await services.operations.get(caller.project, sandbox_id)
    expiry = _expiry(body.expiry, body.seconds, row.expiry)
    return sandbox_shape(await services.operations.extend(caller.project, sandbox_id, expiry))


def _expiry(shape: ExpiryShape | None, seconds: int | None, now: Expiry) -> Expiry:
    expiry = now if shape is None else shape.to_value()
    return expiry if seconds is None else replace(expiry, seconds=seconds)


@router.get("/{sandbox_id}/events", responses=LOOKS)
async def list_events(
    sandbox_id: SandboxId,
    caller: CallerOf,
    services: ServicesOf,
    limit: Annotated[int, Query(ge=1, le=events.KEPT)] = 100,
) -> EventListShape:
    """What happened to it, newest first."""
    rows = await _events(services, caller.project, sandbox_id, limit)
    return EventListShape(events=[event_shape(row) for row in rows])


@router.get("/{sandbox_id}/timings", responses=LOOKS)
async def list_timings(
    sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf
) -> OperationListShape:
    """How long its operations took, by phases, newest first."""
    rows = await _events(services, caller.project, sandbox_id, events.KEPT)
    found = [
        OperationShape(
            operation=row.kind,
            at=event_shape(row).at,
            result=row.data["result"],
            total_ms=row.data["total_ms"],
            phases=row.data["phases"],
        )
        for row in rows
        if row.kind in OPERATIONS
    ]
    return OperationListShape(operations=found)


async def _events(
    services: ServicesOf, project: str, sandbox_id: str, limit: int
) -> list[EventRow]:
    await services.operations.get(project, sandbox_id)
    return await services.database.read(lambda c: events.list_newest(c, sandbox_id, limit))
