"""Firecracker's resources as typed values, and the table of calls that there are.

Pure: what is sent where, and how long the answer may take. `vmm/client.py` sends it. Field names
are Firecracker's own (swagger of v1.16); `to_body` leaves out what is None.
"""

from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any, ClassVar, Literal


class Speed(StrEnum):
    """How long a call may take: the table of deadlines."""

    QUICK = "quick"
    BOOT = "boot"
    STOP = "stop"
    LOAD = "load"
    SAVE = "save"

    @property
    def timeout_s(self) -> float:
        """QUICK calls touch a value or open a file. BOOT starts vCPUs: under emulation on a
        loaded host the VMM may need seconds to load its own program first. STOP waits for vCPUs
        (Firecracker: 30 s) and for disks. LOAD is as BOOT, and waits for pages of the pager's.
        SAVE writes and syncs memory: 16 GiB at 30 MB/s."""
        return {
            Speed.QUICK: 10.0,
            Speed.BOOT: 30.0,
            Speed.STOP: 45.0,
            Speed.LOAD: 90.0,
            Speed.SAVE: 600.0,
        }[self]


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Something that is PUT (or PATCHed) to one path."""

    method: ClassVar[Literal["PUT", "PATCH"]] = "PUT"
    speed: ClassVar[Speed] = Speed.QUICK

    @property
    def path(self) -> str:
        raise NotImplementedError

    def to_body(self) -> dict[str, Any]:
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: _json(value) for name, value in pairs if value is not None}


@dataclass(frozen=True, kw_only=True)
class MachineConfig(Resource):
    vcpu_count: int
    mem_size_mib: int
    smt: bool = False
    track_dirty_pages: bool = True
    path: ClassVar[str] = "/machine-config"


@dataclass(frozen=True, kw_only=True)
class BootSource(Resource):
    kernel_image_path: str
    initrd_path: str | None = None
    boot_args: str | None = None
    path: ClassVar[str] = "/boot-source"


@dataclass(frozen=True, kw_only=True)
class Drive(Resource):
    drive_id: str
    path_on_host: str
    is_root_device: bool = False
    is_read_only: bool = False
    cache_type: Literal["Unsafe", "Writeback"] = "Unsafe"
    io_engine: Literal["Sync", "Async"] = "Sync"

    @property
    def path(self) -> str:
        return f"/drives/{self.drive_id}"


@dataclass(frozen=True, kw_only=True)
class DriveChange(Resource):
    """Opens the drive's file again; the guest is told of its length."""

    method: ClassVar[Literal["PUT", "PATCH"]] = "PATCH"
    drive_id: str
    path_on_host: str

    @property
    def path(self) -> str:
        return f"/drives/{self.drive_id}"


@dataclass(frozen=True, kw_only=True)
class NetworkInterface(Resource):
    iface_id: str
    host_dev_name: str
    guest_mac: str | None = None

    @property
    def path(self) -> str:
        return f"/network-interfaces/{self.iface_id}"


@dataclass(frozen=True, kw_only=True)
class Entropy(Resource):
    path: ClassVar[str] = "/entropy"


@dataclass(frozen=True, kw_only=True)
class Serial(Resource):
    serial_out_path: str | None = None
    rate_limiter: dict[str, int] | None = None
    path: ClassVar[str] = "/serial"


@dataclass(frozen=True, kw_only=True)
class Action(Resource):
    action_type: Literal["InstanceStart", "SendCtrlAltDel", "FlushMetrics"]
    speed: ClassVar[Speed] = Speed.BOOT
    path: ClassVar[str] = "/actions"


@dataclass(frozen=True, kw_only=True)
class VmState(Resource):
    """Stops the vCPUs, or lets them go on. Asking for what is already so does nothing."""

    method: ClassVar[Literal["PUT", "PATCH"]] = "PATCH"
    state: Literal["Paused", "Resumed"]
    speed: ClassVar[Speed] = Speed.STOP
    path: ClassVar[str] = "/vm"


@dataclass(frozen=True, kw_only=True)
class SnapshotCreate(Resource):
    """Of a paused guest. A Diff has the pages written since the last snapshot, or the start."""

    snapshot_path: str
    mem_file_path: str
    snapshot_type: Literal["Full", "Diff"]
    speed: ClassVar[Speed] = Speed.SAVE
    path: ClassVar[str] = "/snapshot/create"


@dataclass(frozen=True, kw_only=True)
class MemBackend:
    """Where memory comes from: a file, or the socket of whoever serves page faults."""

    backend_type: Literal["File", "Uffd"]
    backend_path: str


@dataclass(frozen=True, kw_only=True)
class NetworkOverride:
    """An interface that is to be on another tap than it was."""

    iface_id: str
    host_dev_name: str


@dataclass(frozen=True, kw_only=True)
class SnapshotLoad(Resource):
    """The first thing that a VMM is told, but for its output. When it fails, the VMM ends."""

    snapshot_path: str
    mem_backend: MemBackend
    track_dirty_pages: bool = True
    resume_vm: bool = True
    network_overrides: tuple[NetworkOverride, ...] = ()
    speed: ClassVar[Speed] = Speed.LOAD
    path: ClassVar[str] = "/snapshot/load"


@dataclass(frozen=True, kw_only=True)
class InstanceInfo:
    """What `GET /` answers."""

    id: str
    state: str
    vmm_version: str
    app_name: str


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
