"""/v1/capsules: sandboxes in the shape of an earlier platform, for its published clients."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from wrennd.control import statistics
from wrennd.control.creation import Wanted
from wrennd.control.routes.parameters import (
    ACTS,
    LOOKS,
    CallerOf,
    IdempotencyKey,
    SandboxId,
    ServicesOf,
    failures,
)
from wrennd.control.shapes import Labels, to_time
from wrennd.control.states import RowState
from wrennd.control.store import sandboxes, usage
from wrennd.control.store.rows import MAX_EXPIRY_S, Expiry, SandboxRow, now_ms
from wrennd.control.templates import BASE
from wrennd.core.errors import InvalidInput
from wrennd.core.model import MAX_MEM_MIB, MAX_VCPUS, MIN_MEM_MIB
from wrennd.core.sizes import MIB

MIN_IDLE_S = 60  # its clients are promised that shorter ones count as this
MAX_LIST = 10_000
MAX_DAYS = 92
DEFAULT_DAYS = 30

router = APIRouter(prefix="/v1/capsules", tags=["capsules"])


class CreateCapsuleShape(BaseModel):
    model_config = ConfigDict(strict=True)

    template: Annotated[str, Field(max_length=63)] | None = None
    vcpus: Annotated[int, Field(ge=1, le=MAX_VCPUS)] | None = None
    memory_mb: Annotated[int, Field(ge=MIN_MEM_MIB, le=MAX_MEM_MIB)] | None = None
    timeout_sec: Annotated[int, Field(ge=0, le=MAX_EXPIRY_S)] | None = None
    metadata: Labels | None = None


class CapsuleShape(BaseModel):
    id: str
    status: str
    template: str
    vcpus: int
    memory_mb: int
    timeout_sec: int
    created_at: datetime
    started_at: datetime | None
    last_active_at: datetime | None
    last_updated: datetime
    metadata: dict[str, str]
    disk_size_mb: int | None
    disk_used_mb: int | None


class CurrentShape(BaseModel):
    running_count: int
    vcpus_reserved: int
    memory_mb_reserved: int


class PeaksShape(BaseModel):
    running_count: int
    vcpus: int
    memory_mb: int


class SeriesShape(BaseModel):
    labels: list[datetime]
    running: list[int]
    vcpus: list[int]
    memory_mb: list[int]


class StatsShape(BaseModel):
    range: str
    current: CurrentShape
    peaks: PeaksShape
    series: SeriesShape


class UsagePoint(BaseModel):
    date: date
    cpu_minutes: float
    ram_mb_minutes: float


class UsageShape(BaseModel):
    from_: Annotated[date, Field(alias="from")]
    to: date
    points: list[UsagePoint]


def capsule_shape(row: SandboxRow) -> CapsuleShape:
    at, changed = to_time(row.created_ms), to_time(row.updated_ms)
    assert at is not None
    assert changed is not None
    return CapsuleShape(
        id=row.id,
        status="stopping" if row.state is RowState.DESTROYING else row.state.value,
        template=row.template,
        vcpus=row.vcpus,
        memory_mb=row.mem_mib,
        timeout_sec=row.expiry.seconds,
        created_at=at,
        started_at=to_time(row.started_ms),
        last_active_at=to_time(row.active_ms),
        last_updated=changed,
        metadata={**row.labels, **row.versions},
        disk_size_mb=row.disk_mib or None,
        disk_used_mb=row.disk_bytes // MIB if row.disk_bytes else None,
    )


@router.post("", status_code=201, responses=ACTS)
async def create(
    caller: CallerOf,
    services: ServicesOf,
    body: CreateCapsuleShape | None = None,
    key: IdempotencyKey = "",
) -> CapsuleShape:
    """A new one, `running`, or `starting` when that takes longer than its clients wait."""
    body = body or CreateCapsuleShape()
    seconds = body.timeout_sec or 0
    wanted = Wanted(
        template=body.template or BASE,
        vcpus=body.vcpus,
        mem_mib=body.memory_mb,
        expiry=Expiry(seconds=max(seconds, MIN_IDLE_S) if seconds else 0),
        labels=body.metadata or {},
    )
    done = await services.creation.create(caller.project, wanted, key)
    return capsule_shape(done.row)


@router.get("", responses=failures())
async def list_capsules(caller: CallerOf, services: ServicesOf) -> list[CapsuleShape]:
    """All but those that are stopped, newest first."""
    wanted = sandboxes.Filter(project=caller.project, limit=MAX_LIST)
    rows = await services.database.read(lambda c: sandboxes.list_page(c, wanted))
    return [capsule_shape(row) for row in rows]


@router.get("/stats", responses=failures())
async def stats(
    caller: CallerOf,
    services: ServicesOf,
    range: Annotated[Literal["5m", "1h", "6h", "24h", "30d"], Query()] = "1h",
) -> StatsShape:
    """What runs, and ran."""
    last = now_ms() // usage.MINUTE_MS
    first = last - statistics.PEAK_MINUTES
    minutes = await services.database.read(
        lambda c: usage.list_since(c, caller.project, first, last)
    )
    running = sandboxes.Filter(
        project=caller.project, states=frozenset({RowState.RUNNING}), limit=MAX_LIST
    )
    rows = await services.database.read(lambda c: sandboxes.list_page(c, running))
    points = statistics.series(minutes, last, range)
    return StatsShape(
        range=range,
        current=CurrentShape(
            running_count=len(rows),
            vcpus_reserved=sum(row.vcpus for row in rows),
            memory_mb_reserved=sum(row.mem_mib for row in rows),
        ),
        peaks=PeaksShape(
            running_count=max((each.running for each in minutes), default=0),
            vcpus=max((each.vcpus for each in minutes), default=0),
            memory_mb=max((each.mem_mib for each in minutes), default=0),
        ),
        series=SeriesShape(
            labels=[statistics.time_of(each.minute) for each in points],
            running=[each.running for each in points],
            vcpus=[each.vcpus for each in points],
            memory_mb=[each.mem_mib for each in points],
        ),
    )


@router.get("/usage", responses=failures())
async def list_usage(
    caller: CallerOf,
    services: ServicesOf,
    first: Annotated[date | None, Query(alias="from")] = None,
    last: Annotated[date | None, Query(alias="to")] = None,
) -> UsageShape:
    """CPU and memory minutes by day (UTC)."""
    to = last or datetime.now(UTC).date()
    since = first or to - timedelta(days=min(DEFAULT_DAYS, to.toordinal()) - 1)
    if not 0 <= (to - since).days < MAX_DAYS:
        raise InvalidInput(f"from {since} to {to} is not 1 to {MAX_DAYS} days")
    bounds = statistics.minutes_of(since, to)
    minutes = await services.database.read(lambda c: usage.list_since(c, caller.project, *bounds))
    points = [
        UsagePoint(date=day, cpu_minutes=cpu, ram_mb_minutes=memory)
        for day, cpu, memory in statistics.by_day(minutes, since, to)
    ]
    values: dict[str, Any] = {"from": since, "to": to, "points": points}
    return UsageShape(**values)


@router.get("/{sandbox_id}", responses=LOOKS)
async def get(sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf) -> CapsuleShape:
    """One, also when it is stopped."""
    return capsule_shape(await services.operations.get(caller.project, sandbox_id))


@router.delete("/{sandbox_id}", status_code=204, responses=ACTS)
async def destroy(sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf) -> Response:
    """Destroy it; one that takes longer is `stopping` meanwhile."""
    await services.operations.destroy(caller.project, sandbox_id)
    return Response(status_code=204)


@router.post("/{sandbox_id}/pause", responses=ACTS)
async def pause(sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf) -> CapsuleShape:
    """`paused`, or `pausing` when it takes longer."""
    return capsule_shape((await services.operations.pause(caller.project, sandbox_id)).row)


@router.post("/{sandbox_id}/resume", responses=ACTS)
async def resume(sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf) -> CapsuleShape:
    """`running`, or `resuming` when it takes longer."""
    return capsule_shape((await services.operations.resume(caller.project, sandbox_id)).row)
