"""What the server answers with, as values. docs/api.md says what the fields mean."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from wrennd.core.states import State

PASSING = frozenset(state.value for state in State if state.is_passing)


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """When a sandbox that is left alone, or is old, is paused or destroyed. 0 seconds: never."""

    after: str = "idle"
    seconds: int = 0
    action: str = "pause"


@dataclass(frozen=True, kw_only=True)
class Phase:
    name: str
    ms: float


@dataclass(frozen=True, kw_only=True)
class Timings:
    """How long an operation took, and its phases, in milliseconds."""

    total_ms: float = 0.0
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A sandbox at the moment of the answer. timings: of the operation that was asked for."""

    id: str
    state: str
    template: str
    tier: str = ""
    vcpus: int = 0
    memory_mib: int = 0
    expiry: Expiry = field(default_factory=Expiry)
    expires_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime | None = None
    started_at: datetime | None = None
    active_at: datetime | None = None
    updated_at: datetime | None = None
    generation: int = 0
    address: str = ""
    disk_bytes: int = 0
    host: str = ""
    error: str = ""
    cause: str = ""
    is_kept: bool = True
    revision: int = 0
    source: str = ""
    timings: Timings | None = None

    @property
    def is_passing(self) -> bool:
        """Whether something is being done to it."""
        return self.state in PASSING


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why something is not there: the code of an error, its sentence, what to do about it."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Child:
    """One child of a fork. error: why it does not run. unique, shared: what it has of its own, and
    what it has in common with its source."""

    sandbox: Sandbox
    error: Failure | None = None
    unique: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Fork:
    """A fork's source as it is behind it, and its children, each with its own end."""

    source: Sandbox
    children: tuple[Child, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A part of the list of sandboxes. next_cursor: where the next one begins."""

    sandboxes: tuple[Sandbox, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExecResult:
    """What a command left. stdout and stderr are base64 where `encoding` says so: bytes of either
    are in `stdout_bytes` and `stderr_bytes`."""

    stdout: str
    stderr: str
    exit_code: int
    duration_ms: float = 0.0
    encoding: str = "utf-8"
    truncated: bool = False

    @property
    def stdout_bytes(self) -> bytes:
        return self._bytes(self.stdout)

    @property
    def stderr_bytes(self) -> bytes:
        return self._bytes(self.stderr)

    def _bytes(self, text: str) -> bytes:
        return base64.b64decode(text) if self.encoding == "base64" else text.encode()


@dataclass(frozen=True, kw_only=True)
class Started:
    """A command in the background."""

    pid: int
    tag: str


@dataclass(frozen=True, kw_only=True)
class Process:
    pid: int
    tag: str = ""
    cmd: str = ""
    args: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a sandbox used at a time. cpu_pct: of one CPU."""

    timestamp_unix: int
    cpu_pct: float
    mem_bytes: int
    disk_bytes: int


@dataclass(frozen=True, kw_only=True)
class Console:
    """A piece of a console: base64, where the next one begins, and which console it is."""

    content: str
    next: int
    console: str

    @property
    def data(self) -> bytes:
        return base64.b64decode(self.content)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation on a sandbox, and how long its phases took."""

    operation: str
    at: datetime
    result: str
    total_ms: float
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Event:
    id: str | int
    at: datetime
    kind: str
    data: Any = None


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    name: str
    path: str
    type: str
    size: int = 0
    mode: int = 0
    permissions: str = ""
    owner: str = ""
    group: str = ""
    modified_at: int = 0
    symlink_target: str | None = None


@dataclass(frozen=True, kw_only=True)
class Template:
    """What sandboxes are made from: a base image, or a snapshot. vcpus, memory_mib: those that a
    snapshot was frozen with; None for an image."""

    name: str
    kind: str
    vcpus: int | None = None
    memory_mib: int | None = None
    size_bytes: int = 0
    created_at: datetime | None = None
    tier: str = ""
    sandbox_id: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A snapshot template, in the older shape in which `POST /v1/snapshots` answers."""

    name: str
    type: str = "snapshot"
    vcpus: int | None = None
    memory_mb: int | None = None
    size_bytes: int = 0
    created_at: datetime | None = None
    timings: Timings | None = None


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine that runs sandboxes. capacity: its memory, disk and CPUs, and what is given out."""

    id: str
    status: str
    last_seen_at: datetime | None = None
    installation: str = ""
    version: str = ""
    tier: str = ""
    vmm: str = ""
    vmm_version: str = ""
    kernel: str = ""
    envd_version: str = ""
    capacity: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Key:
    """An API key. key: itself, only in the answer that made it."""

    id: str
    name: str
    project: str
    prefix: str = ""
    created_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    key: str = ""
