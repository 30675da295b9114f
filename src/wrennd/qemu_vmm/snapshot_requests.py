"""What `/snapshot/create` and `/snapshot/load` are asked for, as values (Firecracker v1.16)."""

from dataclasses import dataclass
from enum import StrEnum

from wrennd.qemu_vmm.schema import Field, boolean, choice, listed, optional, path, string, struct


class SnapshotType(StrEnum):
    DIFF = "Diff"
    FULL = "Full"


class BackendType(StrEnum):
    FILE = "File"
    UFFD = "Uffd"


@dataclass(frozen=True, kw_only=True)
class SnapshotCreate:
    snapshot_type: SnapshotType
    snapshot_path: str
    mem_file_path: str


@dataclass(frozen=True, kw_only=True)
class MemBackend:
    backend_path: str
    backend_type: BackendType


@dataclass(frozen=True, kw_only=True)
class NetworkOverride:
    iface_id: str
    host_dev_name: str


@dataclass(frozen=True, kw_only=True)
class VsockOverride:
    uds_path: str


@dataclass(frozen=True, kw_only=True)
class SnapshotLoad:
    """`mem_file_path` and `enable_diff_snapshots` are the older names of what has newer ones."""

    snapshot_path: str
    mem_file_path: str | None
    mem_backend: MemBackend | None
    enable_diff_snapshots: bool
    track_dirty_pages: bool
    resume_vm: bool
    network_overrides: list[NetworkOverride]
    vsock_override: VsockOverride | None
    clock_realtime: bool

    @property
    def problem(self) -> str:
        """What Firecracker says of fields that exclude each other; empty when all is well."""
        if self.mem_backend is not None and self.mem_file_path is not None:
            return (
                "too many fields: either `mem_backend` or `mem_file_path` exclusively is required"
            )
        if self.mem_backend is None and self.mem_file_path is None:
            return "missing field: either `mem_backend` or `mem_file_path` is required"
        return ""

    @property
    def is_tracked(self) -> bool:
        return self.track_dirty_pages or self.enable_diff_snapshots

    @property
    def is_deprecated(self) -> bool:
        return self.mem_file_path is not None or self.enable_diff_snapshots

    @property
    def backend(self) -> MemBackend:
        if self.mem_backend is not None:
            return self.mem_backend
        assert self.mem_file_path is not None, "`problem` is looked at first"
        return MemBackend(backend_path=self.mem_file_path, backend_type=BackendType.FILE)


SNAPSHOT_CREATE = struct(
    "CreateSnapshotParams",
    SnapshotCreate,
    (
        Field(key="snapshot_type", kind=choice(SnapshotType), default=SnapshotType.FULL),
        Field(key="snapshot_path", kind=path, required=True),
        Field(key="mem_file_path", kind=path, required=True),
    ),
)
_MEM_BACKEND = struct(
    "MemBackendConfig",
    MemBackend,
    (
        Field(key="backend_path", kind=path, required=True),
        Field(key="backend_type", kind=choice(BackendType), required=True),
    ),
)
_NETWORK_OVERRIDE = struct(
    "NetworkOverride",
    NetworkOverride,
    (
        Field(key="iface_id", kind=string, required=True),
        Field(key="host_dev_name", kind=string, required=True),
    ),
    ignores_unknown=True,
)
_VSOCK_OVERRIDE = struct(
    "VsockOverride",
    VsockOverride,
    (Field(key="uds_path", kind=string, required=True),),
    ignores_unknown=True,
)
SNAPSHOT_LOAD = struct(
    "LoadSnapshotConfig",
    SnapshotLoad,
    (
        Field(key="snapshot_path", kind=path, required=True),
        Field(key="mem_file_path", kind=optional(path)),
        Field(key="mem_backend", kind=optional(_MEM_BACKEND)),
        Field(key="enable_diff_snapshots", kind=boolean, default=False),
        Field(key="track_dirty_pages", kind=boolean, default=False),
        Field(key="resume_vm", kind=boolean, default=False),
        Field(key="network_overrides", kind=listed(_NETWORK_OVERRIDE), default=[]),
        Field(key="vsock_override", kind=optional(_VSOCK_OVERRIDE)),
        Field(key="clock_realtime", kind=boolean, default=False),
    ),
)
