"""/v1/snapshots, as the earlier platform has them; /v1/templates and /v1/images in our shape."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from wrennd.control import mirror
from wrennd.control.routes.parameters import (
    ACTS,
    LOOKS,
    CallerOf,
    IdempotencyKey,
    ServicesOf,
    TemplateName,
    failures,
)
from wrennd.control.shapes import SandboxId, TimingsShape, timings_shape, to_time
from wrennd.control.store import templates
from wrennd.control.store.rows import TemplateRow

KINDS = {"base": mirror.IMAGE, "snapshot": "snapshot"}
TYPES = "^((base|snapshot)(,(base|snapshot))*)?$"

router = APIRouter()


class CreateSnapshotShape(BaseModel):
    model_config = ConfigDict(strict=True)

    sandbox_id: SandboxId
    name: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    pause: bool = True


class SnapshotShape(BaseModel):
    name: str
    type: Literal["base", "snapshot"]
    vcpus: int | None
    memory_mb: int | None
    size_bytes: int
    created_at: datetime | None
    platform: bool
    protected: bool
    metadata: dict[str, str]
    timings: TimingsShape | None = None


class GoesOnShape(BaseModel):
    name: str
    type: Literal["snapshot"]


class TemplateShape(BaseModel):
    name: str
    kind: Literal["image", "snapshot"]
    vcpus: int | None
    memory_mib: int | None
    size_bytes: int
    created_at: datetime | None
    tier: str
    sandbox_id: str
    error: str


class TemplateListShape(BaseModel):
    templates: list[TemplateShape]


def snapshot_shape(row: TemplateRow) -> SnapshotShape:
    is_image = row.kind == mirror.IMAGE
    return SnapshotShape(
        name=row.name,
        type="base" if is_image else "snapshot",
        vcpus=row.vcpus or None,
        memory_mb=row.mem_mib or None,
        size_bytes=row.size_bytes,
        created_at=to_time(row.created_ms),
        platform=is_image,
        protected=is_image,
        metadata={},
    )


def template_shape(row: TemplateRow) -> TemplateShape:
    return TemplateShape(
        name=row.name,
        kind="image" if row.kind == mirror.IMAGE else "snapshot",
        vcpus=row.vcpus or None,
        memory_mib=row.mem_mib or None,
        size_bytes=row.size_bytes,
        created_at=to_time(row.created_ms),
        tier=row.tier,
        sandbox_id=row.sandbox,
        error=row.error,
    )


@router.post(
    "/v1/snapshots",
    status_code=201,
    tags=["snapshots"],
    responses={**ACTS, **failures(403, 404, 409, 500, 502, 504), 202: {"model": GoesOnShape}},
)
async def create_snapshot(
    caller: CallerOf,
    services: ServicesOf,
    body: CreateSnapshotShape,
    overwrite: Annotated[bool, Query()] = False,
    key: IdempotencyKey = "",
) -> SnapshotShape:
    """Freeze a sandbox, running or paused, under a name. It is paused then (`pause` false: not)."""
    frozen = await services.templates.freeze(
        caller.project,
        body.sandbox_id,
        body.name or "",
        ends_paused=body.pause,
        overwrite=overwrite,
        key=key,
    )
    if frozen.row is None:
        shape = GoesOnShape(name=frozen.name, type="snapshot")
        return JSONResponse(shape.model_dump(), status_code=202)  # type: ignore[return-value]  # sent as it is
    made = snapshot_shape(frozen.row)
    made.timings = timings_shape(frozen.done)
    return made


@router.get("/v1/snapshots", tags=["snapshots"], responses=failures())
async def list_snapshots(
    caller: CallerOf,
    services: ServicesOf,
    kinds: Annotated[str, Query(alias="type", pattern=TYPES, max_length=64)] = "",
) -> list[SnapshotShape]:
    """Snapshots and base images; `type` chooses."""
    wanted = {name for name in kinds.split(",") if name}
    chosen = {KINDS[name] for name in wanted or KINDS}
    rows = await services.templates.list(caller.project)
    return [snapshot_shape(row) for row in rows if row.kind in chosen]


@router.delete(
    "/v1/snapshots/{name}", status_code=204, tags=["snapshots"], responses={**ACTS, **failures(403)}
)
async def delete_snapshot(name: TemplateName, caller: CallerOf, services: ServicesOf) -> Response:
    """Remove a snapshot. Sandboxes that were made from it stay."""
    await services.templates.remove(caller.project, name)
    return Response(status_code=204)


@router.get("/v1/templates", tags=["templates"], responses=failures())
async def list_templates(caller: CallerOf, services: ServicesOf) -> TemplateListShape:
    """What sandboxes can be made from: the project's snapshots, and everybody's images."""
    rows = await services.templates.list(caller.project)
    return TemplateListShape(templates=[template_shape(row) for row in rows])


@router.get("/v1/images", tags=["templates"], responses=failures())
async def list_images(caller: CallerOf, services: ServicesOf) -> TemplateListShape:
    """Base images alone."""
    rows = await services.templates.list(caller.project)
    images = [template_shape(row) for row in rows if row.kind == mirror.IMAGE]
    return TemplateListShape(templates=images)


@router.get("/v1/templates/{name}", tags=["templates"], responses=LOOKS)
async def get_template(name: TemplateName, caller: CallerOf, services: ServicesOf) -> TemplateShape:
    """One of them."""
    row = await services.database.read(lambda c: templates.get(c, caller.project, name))
    return template_shape(row)


@router.delete(
    "/v1/templates/{name}", status_code=204, tags=["templates"], responses={**ACTS, **failures(403)}
)
async def delete_template(name: TemplateName, caller: CallerOf, services: ServicesOf) -> Response:
    """Remove a snapshot template."""
    await services.templates.remove(caller.project, name)
    return Response(status_code=204)
