"""What the API answers when it refuses: Firecracker's texts, with the prefix of the resource."""

import os
from enum import StrEnum
from typing import ClassVar


class Prefix(StrEnum):
    """How a refusal begins, by what it is about. `MMMDS` is Firecracker's own spelling."""

    BALLOON_CONFIG = "Balloon config error: "
    BALLOON_UPDATE = "Balloon update error: "
    BOOT_SOURCE = "Boot source error: "
    CPU_CONFIG = "Configure CPU error: "
    CREATE_SNAPSHOT = "Create snapshot error: "
    DRIVE = "Drive config error: "
    ENTROPY = "Entropy config error: "
    HOTPLUG_CONFIG = "Memory hotplug config error: "
    HOTPLUG_UPDATE = "Memory hotplug update error: "
    INTERNAL = "Internal VMM error: "
    LOAD_SNAPSHOT = "Load snapshot error: "
    LOGGER = "Logger error: "
    MACHINE = "Machine config error: "
    METRICS = "Metrics error: "
    MMDS = "MMDS error: "
    MMDS_LIMIT = "MMDS limit exceeded error: "
    MMDS_CONFIG = "MMMDS config error: "
    NETWORK = "Network config error: "
    PMEM = "Pmem config error: "
    START = "Start microvm error: "
    VSOCK = "Vsock config error: "


class Fault(Exception):
    """A refusal, as it stands in `fault_message`. The microVM is unchanged."""

    status: ClassVar[int] = 400
    reason: ClassVar[str] = "Bad Request"  # in the log only


class TooLarge(Fault):
    """More data than the metadata store may hold."""

    status = 413
    reason = "Payload too large"


def unsupported(prefix: Prefix, feature: str) -> Fault:
    """The refusal of what this VMM can't do."""
    return Fault(f"{prefix}{feature} is not supported by the QEMU-based VMM.")


def os_text(error: OSError) -> str:
    """An OSError as Rust writes it."""
    if error.errno is None:
        return str(error)
    return f"{os.strerror(error.errno)} (os error {error.errno})"
