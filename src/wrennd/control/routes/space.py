"""/v1/hosts/{id}/space and /v1/hosts/{id}/prune: what takes a host's disk, and what may go."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict

from wrennd.control.auth import Caller
from wrennd.control.routes.parameters import CallerOf, ServicesOf, failures
from wrennd.control.services import Services
from wrennd.control.store import events, hosts
from wrennd.control.store.rows import now_ms
from wrennd.core.errors import NotFound
from wrennd.gen.hostagent import hostagent_pb as pb

router = APIRouter(tags=["hosts"])
HostId = Annotated[str, Path(max_length=63)]
SPACE_S = 60
PRUNE_S = 300
# How long what happened to a sandbox is told when it has ended.
EVENTS_KEPT_MS = 30 * 24 * 3600 * 1000


class HoldingShape(BaseModel):
    kind: str
    name: str
    of: str
    total_bytes: int
    own_bytes: int
    note: str


class SpaceShape(BaseModel):
    holdings: list[HoldingShape]
    total_bytes: int


class PruneShape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    dry_run: bool = False
    templates: bool = False


class PrunedShape(BaseModel):
    kind: str
    name: str
    why: str
    own_bytes: int


class PruningShape(BaseModel):
    items: list[PrunedShape]
    freed_bytes: int
    notes: list[str]


@router.get("/v1/hosts/{host_id}/space", responses=failures(403, 404, 500, 504))
async def get_space(host_id: HostId, caller: CallerOf, services: ServicesOf) -> SpaceShape:
    """What takes disk, and what of it would be free if it went."""
    await _require(host_id, caller, services)
    found = await services.agent.rpc.get_space(pb.GetSpaceRequest(), timeout_ms=SPACE_S * 1000)
    return SpaceShape(
        holdings=[
            HoldingShape(
                kind=each.kind,
                name=each.name,
                of=each.of,
                total_bytes=each.total_bytes,
                own_bytes=each.own_bytes,
                note=each.note,
            )
            for each in found.holdings
        ],
        total_bytes=found.total_bytes,
    )


@router.post("/v1/hosts/{host_id}/prune", responses=failures(403, 404, 409, 500, 504))
async def prune(
    host_id: HostId, body: PruneShape, caller: CallerOf, services: ServicesOf
) -> PruningShape:
    """Remove what nobody uses; with `dry_run` only say what that is. Sandboxes never; snapshot
    templates that no sandbox was made of with `templates` only, of all projects."""
    await _require(host_id, caller, services)
    request = pb.PruneRequest(is_dry_run=body.dry_run, with_templates=body.templates)
    done = await services.agent.rpc.prune(request, timeout_ms=PRUNE_S * 1000)
    if body.templates and not body.dry_run:
        await services.templates.sync()
    items = [
        PrunedShape(kind=each.kind, name=each.name, why=each.why, own_bytes=each.own_bytes)
        for each in done.items
    ]
    before_ms = now_ms() - EVENTS_KEPT_MS
    told = await services.database.run(
        lambda c: events.drop_ended(c, before_ms, is_dry_run=body.dry_run)
    )
    if told:
        why = "their sandboxes ended more than 30 days ago"
        items.append(PrunedShape(kind="events", name=f"{told} events", why=why, own_bytes=0))
    return PruningShape(items=items, freed_bytes=done.freed_bytes, notes=list(done.notes))


async def _require(host_id: str, caller: Caller, services: Services) -> None:
    """Errors: Forbidden; NotFound."""
    caller.require_admin()
    row = await services.database.read(lambda c: hosts.get(c, host_id))
    if row is None:
        raise NotFound(f"there is no host {host_id[:63]}", hint="GET /v1/hosts lists them")
