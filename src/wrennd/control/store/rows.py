"""Rows as values: what the functions of this package take and give."""

import time
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from wrennd.control.states import RowState
from wrennd.core.errors import InvalidInput

MAX_EXPIRY_S = 366 * 24 * 3600


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """What happens after so many seconds without activity, or at a time. 0 seconds: never."""

    after: Literal["idle", "deadline"] = "idle"
    seconds: int = 0
    action: Literal["pause", "destroy"] = "pause"

    def __post_init__(self) -> None:
        if not 0 <= self.seconds <= MAX_EXPIRY_S:
            raise InvalidInput(
                f"a sandbox can't expire after {self.seconds} s",
                hint=f"choose between 0 (never) and {MAX_EXPIRY_S}",
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class SandboxRow:
    """A sandbox as the server knows it; `store/schema.py` has the columns.

    source: the sandbox that it was forked from, else "".
    """

    id: str
    project: str
    host: str
    state: RowState
    revision: int
    host_revision: int
    template: str
    tier: str
    vcpus: int
    mem_mib: int
    disk_mib: int
    expiry: Expiry
    labels: dict[str, str]
    versions: dict[str, str]
    generation: int
    address: str
    disk_bytes: int
    error: str
    cause: str
    is_kept: bool
    created_ms: int
    updated_ms: int
    started_ms: int | None
    active_ms: int | None
    expires_ms: int | None
    source: str = ""

    @classmethod
    def of(cls, columns: Any) -> Self:
        values = dict(columns)
        values["state"] = RowState(values["state"])
        values["expiry"] = Expiry(**values["expiry"])
        return cls(**values)

    def to_columns(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """An API key without itself: of it there is only a hash."""

    id: str
    project: str
    name: str
    prefix: str
    created_ms: int
    used_ms: int | None
    revoked_ms: int | None


@dataclass(frozen=True, kw_only=True)
class HostRow:
    """A machine that runs sandboxes. status: "online", "unreachable" or "foreign"."""

    id: str
    status: str
    reason: str
    installation: str
    seen_ms: int | None
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TemplateRow:
    """What sandboxes are made from. kind: "image" (of no project, "") or "snapshot"."""

    project: str
    name: str
    host: str
    host_name: str
    kind: str
    vcpus: int
    mem_mib: int
    size_bytes: int
    created_ms: int
    tier: str
    sandbox: str
    error: str


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """Something that happened to a sandbox ("" for what happened to none)."""

    id: int
    project: str
    sandbox: str
    at_ms: int
    kind: str
    data: dict[str, Any]
