"""The API's resources as typed values, with the table of fields from which each is read.

Names, defaults and order of fields are Firecracker's (v1.16): the order shows in error texts and
in `GET /vm/config`. Checks that need more than the value itself are in `configuration.py`.
"""

import re
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum

from wrennd.qemu_vmm.schema import (
    Field,
    boolean,
    checked,
    choice,
    optional,
    path,
    string,
    struct,
    unsigned,
)

DEFAULT_BOOT_ARGS = (
    "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd "
    "swiotlb=noforce"
)
DEFAULT_MEM_MIB = 128
MAX_VCPUS = 32
LEVELS = {"off": 0, "error": 1, "warn": 2, "warning": 2, "info": 3, "debug": 4, "trace": 5}
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


class HugePages(StrEnum):
    NONE = "None"
    HUGETLBFS_2M = "2M"


class CpuTemplate(StrEnum):
    C3 = "C3"
    T2 = "T2"
    T2S = "T2S"
    NONE = "None"
    T2CL = "T2CL"
    T2A = "T2A"


class CacheType(StrEnum):
    UNSAFE = "Unsafe"
    WRITEBACK = "Writeback"


class IoEngine(StrEnum):
    ASYNC = "Async"
    SYNC = "Sync"


class ActionType(StrEnum):
    FLUSH_METRICS = "FlushMetrics"
    INSTANCE_START = "InstanceStart"
    SEND_CTRL_ALT_DEL = "SendCtrlAltDel"


class WantedState(StrEnum):
    PAUSED = "Paused"
    RESUMED = "Resumed"


@dataclass(frozen=True, kw_only=True)
class TokenBucket:
    """`size` tokens, filled up again within `refill_time` ms; a burst that comes only once."""

    size: int
    one_time_burst: int | None
    refill_time: int

    @property
    def is_limit(self) -> bool:
        """Firecracker treats a bucket without size or time as no limit, and one whose time is
        more nanoseconds than 64 bits hold."""
        return self.size > 0 and 0 < self.refill_time < (1 << 64) / 10**6

    @property
    def per_second(self) -> int:
        return max(1, self.size * 1000 // self.refill_time)


@dataclass(frozen=True, kw_only=True)
class RateLimiter:
    bandwidth: TokenBucket | None
    ops: TokenBucket | None

    @property
    def is_limit(self) -> bool:
        return any(bucket is not None and bucket.is_limit for bucket in (self.bandwidth, self.ops))


@dataclass(frozen=True, kw_only=True)
class BootSource:
    kernel_image_path: str
    initrd_path: str | None = None
    boot_args: str | None = None


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    vcpu_count: int = 1
    mem_size_mib: int = DEFAULT_MEM_MIB
    smt: bool = False
    track_dirty_pages: bool = False
    huge_pages: HugePages = HugePages.NONE


@dataclass(frozen=True, kw_only=True)
class MachineUpdate:
    """What a PUT or PATCH of the machine changes; None: stays."""

    vcpu_count: int | None = None
    mem_size_mib: int | None = None
    smt: bool | None = None
    cpu_template: CpuTemplate | None = None
    track_dirty_pages: bool | None = None
    huge_pages: HugePages | None = None


@dataclass(frozen=True, kw_only=True)
class Drive:
    drive_id: str
    partuuid: str | None
    is_root_device: bool
    cache_type: CacheType
    is_read_only: bool | None
    path_on_host: str | None
    rate_limiter: RateLimiter | None
    io_engine: IoEngine | None
    socket: str | None


@dataclass(frozen=True, kw_only=True)
class DrivePatch:
    drive_id: str
    path_on_host: str | None
    rate_limiter: RateLimiter | None


@dataclass(frozen=True, kw_only=True)
class NetworkInterface:
    iface_id: str
    host_dev_name: str
    guest_mac: str | None
    mtu: int | None
    rx_rate_limiter: RateLimiter | None
    tx_rate_limiter: RateLimiter | None


@dataclass(frozen=True, kw_only=True)
class NetworkInterfacePatch:
    iface_id: str
    rx_rate_limiter: RateLimiter | None
    tx_rate_limiter: RateLimiter | None


@dataclass(frozen=True, kw_only=True)
class Entropy:
    rate_limiter: RateLimiter | None


@dataclass(frozen=True, kw_only=True)
class Logger:
    log_path: str | None = None
    level: str | None = None
    show_level: bool | None = None
    show_log_origin: bool | None = None
    module: str | None = None


@dataclass(frozen=True, kw_only=True)
class Metrics:
    metrics_path: str


@dataclass(frozen=True, kw_only=True)
class Serial:
    serial_out_path: str | None
    rate_limiter: TokenBucket | None


def _mac_problem(text: str) -> str:
    return "" if _MAC.fullmatch(text) else "The provided MAC address is invalid."


def _level_problem(text: str) -> str:
    return "" if text.lower() in LEVELS else "Invalid LevelFilter"


TOKEN_BUCKET = struct(
    "TokenBucketConfig",
    TokenBucket,
    (
        Field(key="size", kind=unsigned("u64"), required=True),
        Field(key="one_time_burst", kind=optional(unsigned("u64"))),
        Field(key="refill_time", kind=unsigned("u64"), required=True),
    ),
    ignores_unknown=True,
)
RATE_LIMITER = struct(
    "RateLimiterConfig",
    RateLimiter,
    (
        Field(key="bandwidth", kind=optional(TOKEN_BUCKET)),
        Field(key="ops", kind=optional(TOKEN_BUCKET)),
    ),
)
BOOT_SOURCE = struct(
    "BootSourceConfig",
    BootSource,
    (
        Field(key="kernel_image_path", kind=string, required=True),
        Field(key="initrd_path", kind=optional(string)),
        Field(key="boot_args", kind=optional(string)),
    ),
)
MACHINE_CONFIG = struct(
    "MachineConfig",
    MachineUpdate,
    (
        Field(key="vcpu_count", kind=unsigned("u8"), required=True),
        Field(key="mem_size_mib", kind=unsigned("usize"), required=True),
        Field(key="smt", kind=boolean, default=False),
        Field(key="cpu_template", kind=optional(choice(CpuTemplate))),
        Field(key="track_dirty_pages", kind=boolean, default=False),
        Field(key="huge_pages", kind=choice(HugePages), default=HugePages.NONE),
    ),
)
MACHINE_UPDATE = struct(
    "MachineConfigUpdate",
    MachineUpdate,
    (
        Field(key="vcpu_count", kind=optional(unsigned("u8"))),
        Field(key="mem_size_mib", kind=optional(unsigned("usize"))),
        Field(key="smt", kind=optional(boolean)),
        Field(key="cpu_template", kind=optional(choice(CpuTemplate))),
        Field(key="track_dirty_pages", kind=optional(boolean)),
        Field(key="huge_pages", kind=optional(choice(HugePages))),
    ),
)
DRIVE = struct(
    "BlockDeviceConfig",
    Drive,
    (
        Field(key="drive_id", kind=string, required=True),
        Field(key="partuuid", kind=optional(string)),
        Field(key="is_root_device", kind=boolean, required=True),
        Field(key="cache_type", kind=choice(CacheType), default=CacheType.UNSAFE),
        Field(key="is_read_only", kind=optional(boolean)),
        Field(key="path_on_host", kind=optional(string)),
        Field(key="rate_limiter", kind=optional(RATE_LIMITER)),
        Field(key="io_engine", kind=optional(choice(IoEngine))),
        Field(key="socket", kind=optional(string)),
    ),
)
DRIVE_PATCH = struct(
    "BlockDeviceUpdateConfig",
    DrivePatch,
    (
        Field(key="drive_id", kind=string, required=True),
        Field(key="path_on_host", kind=optional(string)),
        Field(key="rate_limiter", kind=optional(RATE_LIMITER)),
    ),
)
NETWORK_INTERFACE = struct(
    "NetworkInterfaceConfig",
    NetworkInterface,
    (
        Field(key="iface_id", kind=string, required=True),
        Field(key="host_dev_name", kind=string, required=True),
        Field(key="guest_mac", kind=optional(checked(string, _mac_problem))),
        Field(key="mtu", kind=optional(unsigned("u16"))),
        Field(key="rx_rate_limiter", kind=optional(RATE_LIMITER)),
        Field(key="tx_rate_limiter", kind=optional(RATE_LIMITER)),
    ),
)
NETWORK_INTERFACE_PATCH = struct(
    "NetworkInterfaceUpdateConfig",
    NetworkInterfacePatch,
    (
        Field(key="iface_id", kind=string, required=True),
        Field(key="rx_rate_limiter", kind=optional(RATE_LIMITER)),
        Field(key="tx_rate_limiter", kind=optional(RATE_LIMITER)),
    ),
)
ENTROPY = struct(
    "EntropyDeviceConfig",
    Entropy,
    (Field(key="rate_limiter", kind=optional(RATE_LIMITER)),),
)
LOGGER = struct(
    "LoggerConfig",
    Logger,
    (
        Field(key="log_path", kind=optional(path)),
        Field(key="level", kind=optional(checked(string, _level_problem))),
        Field(key="show_level", kind=optional(boolean)),
        Field(key="show_log_origin", kind=optional(boolean)),
        Field(key="module", kind=optional(string)),
    ),
)
METRICS = struct(
    "MetricsConfig",
    Metrics,
    (Field(key="metrics_path", kind=path, required=True),),
    ignores_unknown=True,
)
SERIAL = struct(
    "SerialConfig",
    Serial,
    (
        Field(key="serial_out_path", kind=optional(path)),
        Field(key="rate_limiter", kind=optional(TOKEN_BUCKET)),
    ),
)
ACTION = struct(
    "ActionBody",
    lambda action_type: action_type,
    (Field(key="action_type", kind=choice(ActionType), required=True),),
)
VM_STATE = struct(
    "Vm", lambda state: state, (Field(key="state", kind=choice(WantedState), required=True),)
)


def as_json(value: object) -> object:
    """A resource as the API shows it: every field, in order, null where nothing is set."""
    if is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    return value
