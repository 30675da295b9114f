"""A whole microVM in one document: what a configuration file holds, `GET /vm/config` shows, and a
snapshot describes itself with."""

from dataclasses import dataclass

from wrennd.qemu_vmm.balloon import BALLOON, Balloon
from wrennd.qemu_vmm.mmds import MMDS_CONFIG, MmdsConfig
from wrennd.qemu_vmm.resources import (
    BOOT_SOURCE,
    DRIVE,
    ENTROPY,
    LOGGER,
    MACHINE_CONFIG,
    METRICS,
    NETWORK_INTERFACE,
    BootSource,
    Drive,
    Entropy,
    Logger,
    MachineUpdate,
    Metrics,
    NetworkInterface,
)
from wrennd.qemu_vmm.schema import Field, anything, listed, optional, struct


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole microVM in one document. What we can't do is only remembered as given or not."""

    balloon: Balloon | None
    drives: list[Drive]
    boot_source: BootSource
    cpu_config: bool
    logger: Logger | None
    machine_config: MachineUpdate | None
    metrics: Metrics | None
    mmds_config: MmdsConfig | None
    network_interfaces: list[NetworkInterface]
    vsock: bool
    entropy: Entropy | None
    pmem: bool
    memory_hotplug: bool


DOCUMENT = struct(
    "VmmConfig",
    Document,
    (
        Field(key="balloon", kind=optional(BALLOON)),
        Field(key="drives", kind=listed(DRIVE), required=True),
        Field(key="boot-source", kind=BOOT_SOURCE, required=True),
        Field(key="cpu-config", kind=anything, default=False),
        Field(key="logger", kind=optional(LOGGER)),
        Field(key="machine-config", kind=optional(MACHINE_CONFIG)),
        Field(key="metrics", kind=optional(METRICS)),
        Field(key="mmds-config", kind=optional(MMDS_CONFIG)),
        Field(key="network-interfaces", kind=listed(NETWORK_INTERFACE), default=()),
        Field(key="vsock", kind=anything, default=False),
        Field(key="entropy", kind=optional(ENTROPY)),
        Field(key="pmem", kind=anything, default=False),
        Field(key="memory-hotplug", kind=anything, default=False),
    ),
    ignores_unknown=True,
)
