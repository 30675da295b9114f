"""What the microVM is to be made of, collected before it starts.

Files and taps are opened when they are named, as Firecracker does: a wrong path is refused at
once, and what was named is what is used, whatever happens to the path later.
"""

import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wrennd.linux import tun
from wrennd.qemu_vmm import throttle
from wrennd.qemu_vmm.balloon import Balloon
from wrennd.qemu_vmm.faults import Fault, Prefix, os_text, unsupported
from wrennd.qemu_vmm.resources import (
    MAX_VCPUS,
    BootSource,
    CpuTemplate,
    Drive,
    Entropy,
    HugePages,
    IoEngine,
    MachineConfig,
    MachineUpdate,
    NetworkInterface,
    RateLimiter,
    Serial,
    as_json,
)

MAX_COMMAND_LINE = 2048  # bytes, with the NUL
MIN_MTU = 68
_INTERFACE_NAME_MAX = 15


@dataclass(frozen=True, kw_only=True)
class OpenBoot:
    """Kernel and initrd, open for reading; a descriptor is -1 when there is none: no initrd, or
    a guest that was restored and has its kernel in its memory."""

    source: BootSource
    kernel_fd: int
    initrd_fd: int

    def close(self) -> None:
        for fd in (self.kernel_fd, self.initrd_fd):
            if fd >= 0:
                os.close(fd)


@dataclass(frozen=True, kw_only=True)
class OpenDrive:
    """A drive and its backing file. `is_device`: a block device, not a regular file."""

    drive: Drive
    fd: int
    is_device: bool
    # Once the guest runs it may be put on other files: how many times that happened, and under
    # which number QEMU knows the descriptor then.
    generation: int = 0
    added_fdset: int | None = None

    @property
    def fdset(self) -> int:
        """QEMU's descriptor set with the file in it."""
        return self.fd if self.added_fdset is None else self.added_fdset

    @property
    def is_read_only(self) -> bool:
        return bool(self.drive.is_read_only)

    @property
    def limiter(self) -> RateLimiter | None:
        return self.drive.rate_limiter

    @property
    def size(self) -> int:
        """Of the file, or of the device, in bytes."""
        return os.lseek(self.fd, 0, os.SEEK_END)


@dataclass(frozen=True, kw_only=True)
class OpenInterface:
    """An interface and the tap that it is on. `mac`: the one that it has, if given or not.

    link: of a limited one, two ends of a socket pair, ours and QEMU's; frames go through it, and
    `shaper.py` carries them. QEMU has the tap of any other.
    """

    interface: NetworkInterface
    mac: str
    fd: int
    link: tuple[int, int] | None = None

    @property
    def qemu_fd(self) -> int:
        return self.fd if self.link is None else self.link[1]

    def close(self) -> None:
        for fd in (self.fd, *(self.link or ())):
            os.close(fd)


class Configuration:
    """The resources so far. Owns every descriptor in it until `close`."""

    def __init__(self) -> None:
        self.machine = MachineConfig()
        self.boot: OpenBoot | None = None
        self.drives: list[OpenDrive] = []
        self.interfaces: list[OpenInterface] = []
        self.entropy: Entropy | None = None
        self.balloon: Balloon | None = None
        self.serial: Serial | None = None

    # Every `set_...` and `insert_...` raises Fault and changes nothing when it refuses, but for a
    # network interface, whose predecessor is gone by then: both can't be on one tap.

    def set_boot_source(self, source: BootSource) -> None:
        problem = command_line_problem(source.boot_args or "")
        kernel = _open_boot_file(source.kernel_image_path, "The kernel file cannot be opened: ")
        initrd = -1
        try:
            if source.initrd_path is not None:
                initrd = _open_boot_file(
                    source.initrd_path,
                    "The initrd file cannot be opened due to invalid path or invalid permissions. ",
                )
            if problem:
                raise Fault(f"{Prefix.BOOT_SOURCE}The kernel command line is invalid: {problem}")
        except Fault:
            os.close(kernel)
            if initrd >= 0:
                os.close(initrd)
            raise
        old = self.boot
        self.boot = OpenBoot(source=source, kernel_fd=kernel, initrd_fd=initrd)
        if old is not None:
            old.close()

    def restore(self, boot: BootSource, macs: Sequence[str]) -> None:
        """What only a restored guest has: a kernel that nobody opens any more, and the addresses
        that its interfaces, which are in place, got when it was booted."""
        self.boot = OpenBoot(source=boot, kernel_fd=-1, initrd_fd=-1)
        self.interfaces = [
            replace(opened, mac=mac) for opened, mac in zip(self.interfaces, macs, strict=True)
        ]

    def update_machine(self, update: MachineUpdate) -> None:
        if update.cpu_template not in (None, CpuTemplate.NONE):
            raise unsupported(Prefix.MACHINE, f"cpu_template {update.cpu_template}")
        given = {
            name: value
            for name, value in vars(update).items()
            if value is not None and name != "cpu_template"
        }
        machine = replace(self.machine, **given)
        vcpus = machine.vcpu_count
        if not 0 < vcpus <= MAX_VCPUS or (machine.smt and vcpus > 1 and vcpus % 2):
            raise Fault(
                f"{Prefix.MACHINE}The number of vCPUs must be greater than 0, less than "
                f"{MAX_VCPUS} and must be 1 or an even number if SMT is enabled."
            )
        pages_mib = 1 if machine.huge_pages is HugePages.NONE else 2
        if machine.mem_size_mib == 0 or machine.mem_size_mib % pages_mib:
            raise Fault(
                f"{Prefix.MACHINE}The memory size (MiB) is either 0, or not a multiple of the "
                "configured page size."
            )
        if machine.huge_pages is not HugePages.NONE:
            raise unsupported(Prefix.MACHINE, f"huge_pages {machine.huge_pages}")
        if self.balloon is not None and machine.mem_size_mib < self.balloon.amount_mib:
            raise Fault(
                f"{Prefix.MACHINE}The memory size (MiB) is smaller than the previously set "
                "balloon device target size."
            )
        self.machine = machine

    def insert_drive(self, drive: Drive) -> None:
        index = self._drive_index(drive.drive_id)
        has_root = bool(self.drives) and self.drives[0].drive.is_root_device
        if drive.is_root_device and has_root and index != 0:
            raise Fault(f"{Prefix.DRIVE}A root block device already exists!")
        opened = _open_drive(drive)
        if index is not None:
            os.close(self.drives[index].fd)
            self.drives[index] = opened
            if drive.is_root_device:
                self.drives[0], self.drives[index] = self.drives[index], self.drives[0]
        elif drive.is_root_device:
            self.drives.insert(0, opened)  # /dev/vda must be the root device
        else:
            self.drives.append(opened)

    def _drive_index(self, drive_id: str) -> int | None:
        ids = [opened.drive.drive_id for opened in self.drives]
        return ids.index(drive_id) if drive_id in ids else None

    def insert_interface(self, interface: NetworkInterface) -> None:
        mac = interface.guest_mac.lower() if interface.guest_mac else None
        interface = replace(interface, guest_mac=mac)
        others = [o for o in self.interfaces if o.interface.iface_id != interface.iface_id]
        if mac is not None and any(o.interface.guest_mac == mac for o in others):
            raise Fault(f"{Prefix.NETWORK}The MAC address is already in use: {mac}")
        for index, old in enumerate(self.interfaces):
            if old.interface.iface_id == interface.iface_id:
                old.close()
                self.interfaces[index] = self.interfaces[-1]
                self.interfaces.pop()
                break
        # Without one, QEMU would give every guest the same.
        mac = mac or ":".join(f"{byte:02x}" for byte in (0x02, *os.urandom(5)))
        limiters = (interface.rx_rate_limiter, interface.tx_rate_limiter)
        is_limited = any(throttle.shown(limiter) for limiter in limiters)
        fd = _open_tap(interface, headers=not is_limited)
        link = _make_link() if is_limited else None
        opened = OpenInterface(interface=interface, mac=mac, fd=fd, link=link)
        self.interfaces.append(opened)

    def set_entropy(self, entropy: Entropy) -> None:
        limiter = entropy.rate_limiter
        if limiter is not None and limiter.ops is not None and limiter.ops.is_limit:
            raise unsupported(Prefix.ENTROPY, "a rate limit on operations of the entropy device")
        self.entropy = entropy

    def set_balloon(self, balloon: Balloon) -> None:
        balloon.check(self.machine.mem_size_mib)
        self.balloon = balloon

    def to_json(self) -> dict[str, object]:
        """As `GET /vm/config` shows it: every key, null for what is not set."""
        boot = self.boot.source if self.boot is not None else None
        return {
            "balloon": as_json(self.balloon),
            "drives": [as_json(_shown_drive(opened.drive)) for opened in self.drives],
            "boot-source": as_json(boot or BootSource(kernel_image_path="")),
            "cpu-config": None,
            "logger": None,
            "machine-config": as_json(self.machine),
            "metrics": None,
            "mmds-config": None,
            "network-interfaces": [
                as_json(_shown_interface(opened.interface)) for opened in self.interfaces
            ],
            "vsock": None,
            "entropy": as_json(self.entropy),
            "pmem": [],
            "memory-hotplug": None,
        }

    def close(self) -> None:
        if self.boot is not None:
            self.boot.close()
        for drive in self.drives:
            os.close(drive.fd)
        for interface in self.interfaces:
            interface.close()
        self.boot, self.drives, self.interfaces = None, [], []


def command_line_problem(text: str) -> str:
    """Why `text` can't be a kernel command line; empty when it can. Any other character may
    stand there; Firecracker takes a NUL too, and then panics at the start."""
    if "\0" in text:
        return "it contains a NUL byte."
    if len(text.strip().encode()) + 1 > MAX_COMMAND_LINE:
        return "Invalid cmdline capacity provided."
    return ""


def _shown_drive(drive: Drive) -> Drive:
    return replace(
        drive,
        is_read_only=bool(drive.is_read_only),
        rate_limiter=throttle.shown(drive.rate_limiter),
        io_engine=drive.io_engine or IoEngine.SYNC,
    )


def _shown_interface(interface: NetworkInterface) -> NetworkInterface:
    return replace(
        interface,
        rx_rate_limiter=throttle.shown(interface.rx_rate_limiter),
        tx_rate_limiter=throttle.shown(interface.tx_rate_limiter),
    )


def _open(path: str, flags: int) -> int:
    """Without ever waiting for the other end of a FIFO. Errors: OSError."""
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError:
        raise OSError("file name contained an unexpected NUL byte") from None


def _open_boot_file(path: str, problem: str) -> int:
    try:
        fd = _open(path, os.O_RDONLY)
    except OSError as error:
        raise Fault(f"{Prefix.BOOT_SOURCE}{problem}{os_text(error)}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Fault(f"{Prefix.BOOT_SOURCE}{problem}{path} is not a regular file")
    return fd


def _open_drive(drive: Drive) -> OpenDrive:
    failed = f"{Prefix.DRIVE}Unable to create the virtio block device: "
    if drive.socket is not None:
        raise unsupported(Prefix.DRIVE, "a vhost-user block device (socket)")
    if drive.path_on_host is None:
        raise Fault(f"{failed}Invalid block config.")
    if drive.io_engine is IoEngine.ASYNC:
        raise unsupported(Prefix.DRIVE, "io_engine Async")
    try:
        return open_backing(drive, drive.path_on_host)
    except BackingFault as fault:
        raise Fault(f"{failed}{fault}") from None


class BackingFault(Exception):
    """A drive's file can't be one: without the prefix that says what was to be done with it."""


def open_backing(drive: Drive, path: str) -> OpenDrive:
    """`drive` on the file at `path`. Errors: BackingFault."""
    problem = "Virtio backend error: Error manipulating the backing file: "
    try:
        fd = _open(path, os.O_RDONLY if drive.is_read_only else os.O_RDWR)
    except OSError as error:
        raise BackingFault(f"{problem}{os_text(error)} {path}") from None
    kind = os.fstat(fd).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
        os.close(fd)
        raise BackingFault(f"{problem}neither a regular file nor a block device {path}")
    drive = replace(drive, path_on_host=path)
    return OpenDrive(drive=drive, fd=fd, is_device=stat.S_ISBLK(kind))


def _make_link() -> tuple[int, int]:
    """Datagrams, so that each is a frame; whoever sends too much is told to wait."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    return ours.detach(), theirs.detach()


def _open_tap(interface: NetworkInterface, *, headers: bool) -> int:
    failed = f"{Prefix.NETWORK}Could not create the network device: "
    name, mtu = interface.host_dev_name, interface.mtu
    if mtu is not None and mtu < MIN_MTU:
        raise Fault(f"{failed}MTU {mtu} is out of range [{MIN_MTU}, 65535]")
    if not 0 < len(name.encode(errors="replace")) <= _INTERFACE_NAME_MAX or "\0" in name:
        raise Fault(f"{failed}Open tap device failed: Invalid interface name")
    try:
        device = tun.open_tun()
    except OSError as error:
        raise Fault(
            f"{failed}Open tap device failed: Couldn't open /dev/net/tun: {os_text(error)}"
        ) from None
    try:
        tun.attach_tap(device, name, headers=headers)
    except OSError as error:
        os.close(device)
        raise Fault(
            f"{failed}Open tap device failed: Error while creating ifreq structure: "
            f"{os_text(error)}. Invalid TUN/TAP Backend provided by {name}. Check our "
            "documentation on setting up the network devices."
        ) from None
    return device
