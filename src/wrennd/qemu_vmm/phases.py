"""The life of a microVM, and which calls each phase takes: one table."""

from enum import StrEnum

from wrennd.qemu_vmm.balloon import Balloon, BalloonStatsUpdate, BalloonUpdate
from wrennd.qemu_vmm.faults import Fault
from wrennd.qemu_vmm.mmds import MmdsConfig, MmdsPatch, MmdsPut
from wrennd.qemu_vmm.resources import (
    BootSource,
    Drive,
    DrivePatch,
    Entropy,
    Logger,
    MachineUpdate,
    Metrics,
    NetworkInterface,
    NetworkInterfacePatch,
    Serial,
)
from wrennd.qemu_vmm.snapshot_requests import SnapshotCreate, SnapshotLoad


class Phase(StrEnum):
    """As `GET /` shows it."""

    NOT_STARTED = "Not started"
    RUNNING = "Running"
    PAUSED = "Paused"


class Call(StrEnum):
    """Calls that carry no resource."""

    INSTANCE_INFO = "instance info"
    VERSION = "version"
    FULL_CONFIG = "full config"
    MACHINE_CONFIG = "machine config"
    START = "start"
    FLUSH_METRICS = "flush metrics"
    CTRL_ALT_DEL = "send ctrl alt del"
    PAUSE = "pause vm"
    RESUME = "resume vm"
    BALLOON = "balloon"
    BALLOON_STATISTICS = "balloon statistics"
    BALLOON_HINTING = "balloon hinting"
    MMDS = "mmds"


class When(StrEnum):
    """Phases in which a call is taken."""

    ANY = "any"
    BEFORE = "before start"
    AFTER = "after start"
    # Firecracker hot-plugs these after the start, on PCI only; neither of us has PCI then.
    BEFORE_OR_PCI = "before start, or with PCI"
    AFTER_WITH_PCI = "after start, with PCI"


TABLE: dict[type | Call, When] = {
    Call.INSTANCE_INFO: When.ANY,
    Call.VERSION: When.ANY,
    Call.FULL_CONFIG: When.ANY,
    Call.MACHINE_CONFIG: When.ANY,
    Call.START: When.BEFORE,
    Call.FLUSH_METRICS: When.AFTER,
    Call.CTRL_ALT_DEL: When.AFTER,
    Call.PAUSE: When.AFTER,
    Call.RESUME: When.AFTER,
    Call.BALLOON: When.ANY,
    Call.BALLOON_STATISTICS: When.AFTER,
    Call.BALLOON_HINTING: When.AFTER,
    Call.MMDS: When.ANY,
    Balloon: When.BEFORE,
    BalloonUpdate: When.AFTER,
    BalloonStatsUpdate: When.AFTER,
    BootSource: When.BEFORE,
    MachineUpdate: When.BEFORE,
    Drive: When.BEFORE_OR_PCI,
    DrivePatch: When.AFTER,
    NetworkInterface: When.BEFORE_OR_PCI,
    NetworkInterfacePatch: When.AFTER,
    Entropy: When.BEFORE,
    MmdsConfig: When.BEFORE,
    MmdsPut: When.ANY,
    MmdsPatch: When.ANY,
    Logger: When.BEFORE,
    Metrics: When.BEFORE,
    Serial: When.BEFORE,
    SnapshotCreate: When.AFTER,
    SnapshotLoad: When.BEFORE,
}
# What a guest is booted with: once one of these was tried, no snapshot can be loaded any more.
BOOT_SPECIFIC = (
    *(BootSource, MachineUpdate, Drive, NetworkInterface),
    *(Balloon, Entropy, MmdsConfig),
)


def check(when: When, phase: Phase) -> None:
    """Raise the fault of a call that comes too early or too late."""
    started = phase is not Phase.NOT_STARTED
    if when in (When.AFTER, When.AFTER_WITH_PCI) and not started:
        raise Fault("The requested operation is not supported before starting the microVM.")
    if when is When.BEFORE and started:
        raise Fault("The requested operation is not supported after starting the microVM.")
    if when in (When.BEFORE_OR_PCI, When.AFTER_WITH_PCI) and started:
        raise Fault("PCI is not enabled")
