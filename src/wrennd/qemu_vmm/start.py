"""From a configuration to a guest that runs: everything of InstanceStart.

Knows what stands between the two: how QEMU reaches kernel and initrd, how fast an emulated guest's
clock runs, how dirty pages will be found. Every failure is a `Start microvm error`; `load.py` uses
the parts of it that it shares.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wrennd.linux import tsc
from wrennd.qemu_vmm import balloon, migration, qemu
from wrennd.qemu_vmm.configuration import Configuration, OpenBoot, command_line_problem
from wrennd.qemu_vmm.faults import Fault, Prefix, os_text
from wrennd.qemu_vmm.machine import MAX_DEVICES, Accel, Boot, Machine, kernel_command_line
from wrennd.qemu_vmm.memory import Origin, Plan, Tracking, best_tracking
from wrennd.qemu_vmm.qemu import Qemu
from wrennd.qemu_vmm.sinks import Limited, Sink, open_sink

OWN_FDS = Path("/proc/self/fd")


@dataclass(frozen=True, kw_only=True)
class Host:
    """What runs the guest: QEMU's program and accelerator, and who hears what it says.

    is_tracking_exact: false to find dirty pages as on kernels that can't tell them.
    """

    program: Path
    accel: Accel
    name: str
    is_tracking_exact: bool
    on_console: Callable[[bytes], None]
    on_words: Callable[[str], None]


def open_console(configuration: Configuration, standard_output: Sink) -> Sink:
    """Where the guest's serial port goes: what `PUT /serial` named, else standard output."""
    serial = configuration.serial
    sink = standard_output
    if serial is not None and serial.serial_out_path is not None:
        try:
            sink = open_sink(serial.serial_out_path)
        except (OSError, ValueError) as error:
            text = os_text(error) if isinstance(error, OSError) else str(error)
            raise Fault(
                f"{Prefix.START}Error creating legacy device: cannot open the serial output file "
                f"{serial.serial_out_path}: {text}"
            ) from None
    if serial is not None and serial.rate_limiter is not None and serial.rate_limiter.is_limit:
        sink = Limited(sink, serial.rate_limiter)
    return sink


def start(configuration: Configuration, host: Host) -> Qemu:
    """Start the guest. Errors: Fault, and nothing is left of the attempt."""
    boot = configuration.boot
    if boot is None:
        raise Fault(f"{Prefix.START}Cannot start microvm without kernel configuration.")
    tsc_khz = tsc.tsc_khz() if host.accel is Accel.TCG else None
    drives = tuple(configuration.drives)
    command_line = kernel_command_line(boot.source.boot_args, drives, tsc_khz)
    if problem := command_line_problem(command_line):
        raise Fault(f"{Prefix.START}Invalid kernel command line: {problem}")
    _check_devices(configuration)
    wanted = Boot(
        kernel=_path_for_qemu(boot.source.kernel_image_path, boot.kernel_fd),
        initrd=_initrd_for_qemu(boot),
        command_line=command_line,
        fds=tuple(fd for fd in (boot.kernel_fd, boot.initrd_fd) if fd >= 0),
    )
    try:
        started = spawn(configuration, host, wanted, Origin())
    except qemu.FAILURES as error:
        raise Fault(f"{Prefix.START}{error}") from error
    try:
        if configuration.balloon is not None:
            mem_size_mib = configuration.machine.mem_size_mib
            balloon.set_target(started.execute, configuration.balloon, mem_size_mib)
        started.execute("cont")
    except qemu.FAILURES as error:
        started.close()
        raise Fault(f"{Prefix.START}{error}") from error
    return started


def spawn(configuration: Configuration, host: Host, boot: Boot | None, origin: Origin) -> Qemu:
    """A QEMU that waits for `cont`, or, without `boot`, for the state to load.

    Errors: `qemu.FAILURES`.
    """
    machine = configuration.machine
    is_tracked = machine.track_dirty_pages and host.is_tracking_exact
    tracking = best_tracking() if is_tracked else Tracking.POPULATED

    def make_machine(qmp_fd: int, console_fd: int) -> Machine:
        return Machine(
            name=host.name,
            accel=host.accel,
            config=machine,
            boot=boot,
            drives=tuple(configuration.drives),
            interfaces=tuple(configuration.interfaces),
            entropy=configuration.entropy,
            balloon=configuration.balloon,
            qmp_fd=qmp_fd,
            console_fd=console_fd,
        )

    started = qemu.start(
        host.program,
        make_machine,
        Plan(machine.mem_size_mib << 20, origin, tracking),
        on_console=host.on_console,
        on_words=host.on_words,
    )
    try:
        migration.enable(started)
    except qemu.FAILURES:
        started.close()
        raise
    return started


def _check_devices(configuration: Configuration) -> None:
    count = len(configuration.drives) + len(configuration.interfaces)
    count += configuration.entropy is not None
    count += configuration.balloon is not None
    if count > MAX_DEVICES:
        raise Fault(
            f"{Prefix.START}Failed to allocate guest resource: {count} devices, at most "
            f"{MAX_DEVICES} are possible"
        )


def _path_for_qemu(path: str, fd: int) -> str:
    """A path under which QEMU finds the open file: it loads kernels by path only.

    A confined VMM has no /proc; then it must be the named path, if that is still the same file.
    """
    if OWN_FDS.is_dir():
        return os.fspath(OWN_FDS / str(fd))
    try:
        is_same = os.path.samestat(Path(path).stat(), os.fstat(fd))
    except OSError:
        is_same = False
    if not is_same:
        raise Fault(f"{Prefix.START}{path} is no longer the file that it was when it was set")
    return path


def _initrd_for_qemu(boot: OpenBoot) -> str | None:
    if boot.source.initrd_path is None:
        return None
    return _path_for_qemu(boot.source.initrd_path, boot.initrd_fd)
