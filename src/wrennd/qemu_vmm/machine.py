"""The QEMU command line of one microVM. Pure: values and descriptor numbers in, arguments out.

The machine is `microvm` with ACPI, since the kernels that we boot find virtio-mmio devices by
ACPI only. Each device sits on a named bus: its place is part of the machine, and of every
snapshot of it.
"""

import json
from dataclasses import dataclass
from enum import StrEnum

from wrennd.qemu_vmm import throttle
from wrennd.qemu_vmm.balloon import BALLOON_DEVICE, POLLING_PROPERTY, Balloon
from wrennd.qemu_vmm.configuration import OpenDrive, OpenInterface
from wrennd.qemu_vmm.resources import (
    DEFAULT_BOOT_ARGS,
    CacheType,
    Entropy,
    MachineConfig,
)

MAX_DEVICES = 17  # Firecracker's limit on x86-64; microvm with ACPI has 24 transports
# The guest finds transports in the order of the ACPI tables, where QEMU 7.2 lists them last to
# first: devices are given from the last one down, so that /dev/vda is the first drive. Transport 0
# is never used: it interrupts by pin 0 of the second IOAPIC, and QEMU treats pin 0 of any IOAPIC
# as the PIT's, which is wired to pin 2 (hw/intc/ioapic.c), so its interrupts never arrive.
LAST_BUS = 23
# The balloon's place is fixed: with or without it, and with any number of others, nobody moves.
BALLOON_BUS = 1
_PERIOD_MAX = (1 << 32) - 1  # ms
_SERIAL_MAX = 20  # VIRTIO_BLK_ID_BYTES

# pit and pic: kernels that don't know `tsc_early_khz=` calibrate against them. rtc: without it
# Linux 6.1 waits 2 s for a clock that is not there. x-option-roms: the firmware boots the kernel
# by itself.
_MACHINE = (
    "microvm,acpi=on,pit=on,pic=on,rtc=on,isa-serial=on,x-option-roms=off,"
    "auto-kernel-cmdline=off,memory-backend=ram,mem-merge=off,dump-guest-core=off"
)
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Accel(StrEnum):
    """What executes the guest's code."""

    TCG = "tcg"
    KVM = "kvm"

    @property
    def argument(self) -> str:
        # The default translation cache grows towards 1 GiB a VM.
        return "tcg,thread=multi,tb-size=64" if self is Accel.TCG else "kvm"

    @property
    def cpu(self) -> str:
        return "max" if self is Accel.TCG else "host"


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What a guest boots from: paths that QEMU opens itself, and what they may lead to (`fds`)."""

    kernel: str
    initrd: str | None
    command_line: str
    fds: tuple[int, ...]

    def arguments(self) -> list[str]:
        initrd = [] if self.initrd is None else ["-initrd", self.initrd]
        return ["-kernel", self.kernel, "-append", self.command_line, *initrd]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """All that QEMU is told. But for `boot` it opens nothing; it gets descriptors.

    boot: None for a machine whose state is loaded: its kernel is in its memory.
    """

    name: str
    accel: Accel
    config: MachineConfig
    boot: Boot | None
    drives: tuple[OpenDrive, ...]
    interfaces: tuple[OpenInterface, ...]
    entropy: Entropy | None
    balloon: Balloon | None
    qmp_fd: int
    console_fd: int

    @property
    def ram_bytes(self) -> int:
        return self.config.mem_size_mib << 20

    @property
    def inherited_fds(self) -> tuple[int, ...]:
        drives = tuple(drive.fd for drive in self.drives)
        taps = tuple(interface.qemu_fd for interface in self.interfaces)
        boot = () if self.boot is None else self.boot.fds
        return (self.qmp_fd, self.console_fd, *boot, *drives, *taps)

    def arguments(self) -> list[str]:
        """For QEMU 7.2 and later; starts stopped (`-S`)."""
        arguments = [
            *("-name", self.name),
            *("-no-user-config", "-nodefaults", "-no-reboot", "-S"),
            *("-display", "none"),
            *("-machine", _MACHINE),
            *("-accel", self.accel.argument),
            *("-cpu", self.accel.cpu),
            *("-smp", _smp(self.config)),
            *("-m", f"{self.config.mem_size_mib}M"),
            *_object("memory-backend-memfd", "ram", size=self.ram_bytes, share=True),
            *("-sandbox", _SANDBOX),
            *("-global", "virtio-mmio.force-legacy=false"),
            *("-chardev", f"socket,id=qmp,fd={self.qmp_fd}"),
            *("-mon", "chardev=qmp,mode=control"),
            *("-chardev", f"socket,id=console,fd={self.console_fd}"),
            *("-serial", "chardev:console"),
            # Guests are told to reboot through it (`reboot=k`).
            *("-device", "i8042"),
            *(["-incoming", "defer"] if self.boot is None else self.boot.arguments()),
        ]
        return arguments + self._devices()

    def _devices(self) -> list[str]:
        arguments: list[str] = []
        bus = LAST_BUS
        for index, drive in enumerate(self.drives):
            arguments += _drive(drive, index, bus)
            bus -= 1
        for index, interface in enumerate(self.interfaces):
            arguments += _interface(interface, index, bus)
            bus -= 1
        if self.entropy is not None:
            arguments += _entropy(self.entropy, bus)
        if self.balloon is not None:
            arguments += _balloon(self.balloon)
        return arguments


def _smp(config: MachineConfig) -> str:
    vcpus = config.vcpu_count
    if config.smt and vcpus > 1:
        return f"cpus={vcpus},sockets=1,cores={vcpus // 2},threads=2"
    return f"cpus={vcpus},sockets=1,cores={vcpus},threads=1"


def _object(kind: str, name: str, **properties: object) -> tuple[str, str]:
    return "-object", json.dumps({"qom-type": kind, "id": name, **properties})


def _device(driver: str, name: str, bus: int, **properties: object) -> list[str]:
    place = {"driver": driver, "id": name, "bus": f"virtio-mmio-bus.{bus}"}
    return ["-device", json.dumps({**place, **properties})]


def _drive(opened: OpenDrive, index: int, bus: int) -> list[str]:
    """A raw image through a descriptor set: QEMU opens no path."""
    return [
        *("-add-fd", f"fd={opened.fd},set={opened.fdset}"),
        *_object("throttle-group", throttle_group(index), limits=throttle.limits(opened.limiter)),
        *("-blockdev", json.dumps(drive_node(opened, index))),
        # The guest sees an error, as from a disk: QEMU's default would stop the whole machine.
        *_device(
            "virtio-blk-device",
            drive_device(index),
            bus,
            drive=node_name(opened, index),
            serial=opened.drive.drive_id[:_SERIAL_MAX],
            rerror="report",
            werror="report",
        ),
    ]


def drive_device(index: int) -> str:
    return f"drive{index}-device"


def throttle_group(index: int) -> str:
    """Every drive has one: limits may come while the guest runs."""
    return f"limit{index}"


def node_name(opened: OpenDrive, index: int) -> str:
    return f"drive{index}.{opened.generation}"


def drive_node(opened: OpenDrive, index: int) -> dict[str, object]:
    """The drive's block nodes, its limits on top. Cache type Unsafe: a flush does nothing."""
    common = {
        "read-only": opened.is_read_only,
        "discard": "unmap",
        "cache": {"direct": False, "no-flush": opened.drive.cache_type is CacheType.UNSAFE},
    }
    file = {
        "driver": "host_device" if opened.is_device else "file",
        "filename": f"/dev/fdset/{opened.fdset}",
        # Firecracker takes no locks; one on an inherited description would outlive QEMU.
        "locking": "off",
        **common,
    }
    return {
        "driver": "throttle",
        "throttle-group": throttle_group(index),
        "node-name": node_name(opened, index),
        "file": {"driver": "raw", "file": file, **common},
        **common,
    }


def _interface(opened: OpenInterface, index: int, bus: int) -> list[str]:
    fd = str(opened.qemu_fd)
    backend = {"type": "tap", "fd": fd, "vhost": False}
    if opened.link is not None:
        backend = {"type": "dgram", "local": {"type": "fd", "str": fd}}
    netdev = {"id": f"net{index}", **backend}
    mtu = opened.interface.mtu
    extra = {} if mtu is None else {"host_mtu": mtu}
    return [
        *("-netdev", json.dumps(netdev)),
        *_device(
            "virtio-net-device",
            f"net{index}-device",
            bus,
            netdev=f"net{index}",
            mac=opened.mac,
            **extra,
        ),
    ]


def _entropy(entropy: Entropy, bus: int) -> list[str]:
    limiter = entropy.rate_limiter
    limits: dict[str, object] = {}
    if limiter is not None and limiter.bandwidth is not None and limiter.bandwidth.is_limit:
        period = min(limiter.bandwidth.refill_time, _PERIOD_MAX)
        limits["max-bytes"] = max(
            1, limiter.bandwidth.size * period // limiter.bandwidth.refill_time
        )
        limits["period"] = period
    return [
        *_object("rng-builtin", "rng-source"),
        *_device("virtio-rng-device", "rng", bus, rng="rng-source", **limits),
    ]


def _balloon(balloon: Balloon) -> list[str]:
    """What it asks for is told over QMP, before the guest runs."""
    statistics = {}
    if balloon.stats_polling_interval_s:
        statistics[POLLING_PROPERTY] = balloon.stats_polling_interval_s
    return _device(
        "virtio-balloon-device",
        BALLOON_DEVICE,
        BALLOON_BUS,
        **{
            "deflate-on-oom": balloon.deflate_on_oom,
            "free-page-reporting": balloon.free_page_reporting,
            # With it, guests that clear what they free would rely on zeros in pages that they
            # reported; in a snapshot such a page may still be what it was.
            "page-poison": False,
            **statistics,
        },
    )


def kernel_command_line(
    boot_args: str | None, drives: tuple[OpenDrive, ...], tsc_khz: int | None
) -> str:
    """What Firecracker would append, and what an emulated kernel must know of its clock.

    `tsc_khz`: see `linux/tsc.py`; None when the guest learns it otherwise. With several vCPUs
    Linux calls the counters of an emulated AMD CPU unsynchronized and falls back to counting
    ticks; they are one counter, the host's, so it is told that they can be relied on.
    """
    words = [DEFAULT_BOOT_ARGS if boot_args is None else boot_args]
    given = words[0].split()
    if not any(word.startswith("pci=") for word in given):
        words.append("pci=off")
    if drives and drives[0].drive.is_root_device:
        uuid = drives[0].drive.partuuid
        words.append("root=/dev/vda" if uuid is None else f"root=PARTUUID={uuid}")
        words.append("ro" if drives[0].is_read_only else "rw")
    if tsc_khz is not None and not any(word.startswith("tsc_early_khz=") for word in given):
        words.append(f"tsc_early_khz={tsc_khz}")
        if not any(word.startswith("tsc=") for word in given):
            words.append("tsc=reliable")
    return " ".join(words)
