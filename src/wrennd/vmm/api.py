"""Firecracker's resources as typed values, and the table of calls that there are.

Pure: what is sent where, and how long the answer may take. `vmm/client.py` sends it. Field names
are Firecracker's own (swagger of v1.16); `to_body` leaves out what is None.
"""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, Literal


class Speed(StrEnum):
    """How long a call may take: the table of deadlines."""

    QUICK = "quick"
    BOOT = "boot"

    @property
    def timeout_s(self) -> float:
        """QUICK calls touch a value or open a file. BOOT starts vCPUs: under emulation on a
        loaded host the VMM may need seconds to load its own program first."""
        return {Speed.QUICK: 10.0, Speed.BOOT: 30.0}[self]


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Something that is PUT (or PATCHed) to one path."""

    method: ClassVar[Literal["PUT", "PATCH"]] = "PUT"
    speed: ClassVar[Speed] = Speed.QUICK

    @property
    def path(self) -> str:
        raise NotImplementedError

    def to_body(self) -> dict[str, Any]:
        pairs = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in pairs if value is not None}


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
class InstanceInfo:
    """What `GET /` answers."""

    id: str
    state: str
    vmm_version: str
    app_name: str
