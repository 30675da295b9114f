"""JSON of /v1 as types: what is taken, strictly, and what is answered. docs/api.md explains."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from wrennd.control.forks import Child, Forked
from wrennd.control.sandboxes import Done
from wrennd.control.states import RowState
from wrennd.control.store.rows import MAX_EXPIRY_S, EventRow, Expiry, SandboxRow
from wrennd.core.model import MAX_CHILDREN, MAX_MEM_MIB, MAX_VCPUS, MIN_MEM_MIB

INT32 = (1 << 31) - 1
SandboxId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{20}$")]
Path = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
LabelName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$")]
LabelValue = Annotated[str, StringConstraints(max_length=64)]
Labels = Annotated[dict[LabelName, LabelValue], Field(max_length=20)]
Env = Annotated[dict[str, str], Field(max_length=1000)]


def to_time(ms: int | None) -> datetime | None:
    """RFC 3339 with a zone; the older clients insist on one."""
    return None if ms is None else datetime.fromtimestamp(ms // 1000, UTC)


class Asked(BaseModel):
    """Base of what is taken: an unknown or mistyped field is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ExpiryShape(Asked):
    after: Literal["idle", "deadline"] = "idle"
    seconds: Annotated[int, Field(ge=0, le=MAX_EXPIRY_S)] = 0
    action: Literal["pause", "destroy"] = "pause"

    def to_value(self) -> Expiry:
        return Expiry(after=self.after, seconds=self.seconds, action=self.action)


class CreateShape(Asked):
    template: Annotated[str, Field(max_length=63)] = "base"
    vcpus: Annotated[int, Field(ge=1, le=MAX_VCPUS)] | None = None
    memory_mib: Annotated[int, Field(ge=MIN_MEM_MIB, le=MAX_MEM_MIB)] | None = None
    disk_mib: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    env: Env = {}
    dns: Annotated[list[Annotated[str, Field(max_length=45)]], Field(max_length=8)] = []
    expiry: ExpiryShape = ExpiryShape()
    metadata: Labels = {}
    cold: bool = False


class ResumeShape(Asked):
    cold: bool = False
    discard: bool = False
    expiry: ExpiryShape | None = None


class ExtendShape(Asked):
    expiry: ExpiryShape | None = None
    seconds: Annotated[int, Field(ge=0, le=MAX_EXPIRY_S)] | None = None


class ForkShape(Asked):
    count: Annotated[int, Field(ge=1, le=MAX_CHILDREN)] = 1
    expiry: ExpiryShape | None = None
    metadata: Labels = {}


class PhaseShape(BaseModel):
    name: str
    ms: float


class TimingsShape(BaseModel):
    total_ms: float
    phases: list[PhaseShape]


class SandboxShape(BaseModel):
    id: str
    state: RowState
    template: str
    tier: str
    vcpus: int
    memory_mib: int
    expiry: ExpiryShape
    expires_at: datetime | None
    metadata: dict[str, str]
    created_at: datetime
    started_at: datetime | None
    active_at: datetime | None
    updated_at: datetime
    generation: int
    address: str
    disk_bytes: int
    host: str
    error: str
    cause: str
    is_kept: bool
    revision: int
    source: str
    timings: TimingsShape | None = None


def sandbox_shape(row: SandboxRow) -> SandboxShape:
    return SandboxShape(
        id=row.id,
        state=row.state,
        template=row.template,
        tier=row.tier,
        vcpus=row.vcpus,
        memory_mib=row.mem_mib,
        expiry=ExpiryShape(**row.expiry.to_json()),
        expires_at=to_time(row.expires_ms),
        metadata=row.labels,
        created_at=_time(row.created_ms),
        started_at=to_time(row.started_ms),
        active_at=to_time(row.active_ms),
        updated_at=_time(row.updated_ms),
        generation=row.generation,
        address=row.address,
        disk_bytes=row.disk_bytes,
        host=row.host,
        error=row.error,
        cause=row.cause,
        is_kept=row.is_kept,
        revision=row.revision,
        source=row.source,
    )


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, UTC)


def done_shape(done: Done) -> SandboxShape:
    shape = sandbox_shape(done.row)
    shape.timings = timings_shape(done)
    return shape


def timings_shape(done: Done) -> TimingsShape:
    return TimingsShape(
        total_ms=done.total_ms, phases=[PhaseShape(**phase) for phase in done.phases]
    )


class ChildShape(BaseModel):
    """sandbox: also of one that failed, stopped then. unique, shared: what it has of its own, and
    what it has in common with its source; empty while it is being made."""

    sandbox: SandboxShape
    error: "ErrorBody | None"
    unique: list[str]
    shared: list[str]


class ForkedShape(BaseModel):
    source: SandboxShape
    children: list[ChildShape]


def forked_shape(forked: Forked) -> ForkedShape:
    return ForkedShape(
        source=done_shape(forked.done),
        children=[_child_shape(child) for child in forked.children],
    )


def _child_shape(child: Child) -> ChildShape:
    sandbox, report = sandbox_shape(child.row), child.report
    if report is None:
        return ChildShape(sandbox=sandbox, error=None, unique=[], shared=[])
    phases = [PhaseShape(**phase) for phase in report["phases"]]
    sandbox.timings = TimingsShape(total_ms=report["total_ms"], phases=phases)
    error = None
    if report["result"] != "ok":
        error = ErrorBody(code=report["result"], message=report["error"], hint=report["hint"])
    return ChildShape(
        sandbox=sandbox, error=error, unique=report["unique"], shared=report["shared"]
    )


class SandboxListShape(BaseModel):
    sandboxes: list[SandboxShape]
    next_cursor: str | None


class EventShape(BaseModel):
    id: int
    at: datetime
    kind: str
    data: dict[str, Any]


class EventListShape(BaseModel):
    events: list[EventShape]


def event_shape(row: EventRow) -> EventShape:
    return EventShape(id=row.id, at=_time(row.at_ms), kind=row.kind, data=row.data)


class OperationShape(BaseModel):
    operation: str
    at: datetime
    result: str
    total_ms: float
    phases: list[PhaseShape]


class OperationListShape(BaseModel):
    operations: list[OperationShape]


class ErrorBody(BaseModel):
    code: str
    message: str
    hint: str = ""


class ErrorShape(BaseModel):
    """Every failure under /v1."""

    error: ErrorBody
