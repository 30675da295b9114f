"""One boot of the lab: QEMU with the three disks, the output as it comes, the results at the end.

*Resources*: QEMU is held by a context manager and dies with us; its copies on write are files
without a name. What a run leaves (console.log, results/) stays in a directory of that run's.
"""

import os
import select
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab_host.disk import Disk
from wrennd.core.deadline import Deadline
from wrennd.linux.process import CLEAN_ENVIRONMENT, Process, spawn
from wrennd.linux.tsc import tsc_khz

QEMU = "/usr/bin/qemu-system-x86_64"
CPUS = 2
MEM_MIB = 6144
# What a test of tests would find is left out: under emulation each costs seconds.
BOOT_ARGS = (
    "console=ttyS0 root=/dev/vda rw init=/lab/first-init panic=-1 loglevel=5 "
    "cryptomgr.notests mitigations=off nowatchdog"
)
TAIL_LINES = 30


class LabFailed(Exception):
    """The lab itself did not get through: there is no exit code of what should have run in it."""


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What one boot needs. directory: this run's own, empty."""

    disk: Disk
    data: Path
    order: Path
    directory: Path

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def results(self) -> Path:
        return self.directory / "results"


def run(boot: Boot, deadline: Deadline, show: Callable[[bytes], None]) -> int:
    """Boot, hand each piece of the command's output to `show`, and return its exit code.

    Errors: LabFailed when the machine ended without results; DeadlineExceeded.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    port = (
        "-add-fd",
        f"fd={write},set=1",
        "-chardev",
        "file,id=output,append=on,path=/dev/fdset/1",
    )
    try:
        with _spawned(boot, port, write) as qemu:
            os.close(write)
            write = -1
            _pump(read, qemu, deadline, show)
            while qemu.wait(deadline) is None:
                deadline.check("the end of the lab")
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
    return _exit_code(boot)


def shell(boot: Boot) -> int:
    """Boot with this terminal as that of a shell in the lab, until it ends."""
    argv = _argv(boot, ("-chardev", "stdio,id=output,signal=off"))
    argv += ["-device", "virtconsole,chardev=output"]
    with spawn(argv, env=_environment(boot), stdin=0, stdout=1, stderr=2) as qemu:
        while qemu.wait(Deadline.after(3600)) is None:
            pass
    return _exit_code(boot)


def _spawned(boot: Boot, port: tuple[str, ...], write: int) -> Process:
    argv = _argv(boot, port)
    argv += ["-device", "virtserialport,chardev=output,name=lab.output"]
    with (boot.directory / "qemu.log").open("wb") as log:
        return spawn(argv, env=_environment(boot), stdout=log, stderr=log, pass_fds=(write,))


def _environment(boot: Boot) -> dict[str, str]:
    """QEMU's copies on write lie beside the disks: they take what the disks' space takes."""
    return CLEAN_ENVIRONMENT | {"TMPDIR": os.fspath(boot.directory)}


def _argv(boot: Boot, port: tuple[str, ...]) -> list[str]:
    kept = "format=raw,if=virtio,snapshot=on,cache=unsafe"
    return [
        # QEMU does not outlive whoever waits for it.
        *("setpriv", "--pdeathsig", "KILL", QEMU, "-name", "wrenn-lab"),
        *(
            "-machine",
            "q35,sata=off,smbus=off",
            "-cpu",
            "EPYC,+svm,+npt",
            "-accel",
            "tcg,thread=multi",
        ),
        *("-smp", str(CPUS), "-m", str(MEM_MIB), "-nodefaults", "-no-user-config"),
        *("-display", "none", "-no-reboot"),
        *("-kernel", os.fspath(boot.disk.vmlinux), "-initrd", os.fspath(boot.disk.initrd)),
        # Without it the kernel of a busy host takes the HPET for its clock (linux/tsc.py), and
        # each reading of the time is then as dear as 500 system calls.
        *("-append", f"{BOOT_ARGS} tsc_early_khz={tsc_khz()} tsc=reliable"),
        *("-drive", f"file={boot.disk.root},{kept}", "-drive", f"file={boot.data},{kept}"),
        *("-drive", f"file={boot.order},format=raw,if=virtio,readonly=on"),
        *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
        *("-serial", f"file:{boot.console}", *port),
        *("-chardev", f"file,id=results,path={boot.directory / 'results.tar'}"),
        *("-device", "virtserialport,chardev=results,name=lab.results"),
    ]


def _pump(read: int, qemu: Process, deadline: Deadline, show: Callable[[bytes], None]) -> None:
    """Pass the output on until QEMU has closed it."""
    while True:
        deadline.check("the lab")
        if not select.select([read], [], [], deadline.remaining_s)[0]:
            continue
        data = os.read(read, 65536)
        if not data:
            return
        show(data)


def _exit_code(boot: Boot) -> int:
    archive = boot.directory / "results.tar"
    try:
        with tarfile.open(archive) as found:
            found.extractall(boot.results, filter="data")
        code = int((boot.results / "exit-code").read_text())
    except (tarfile.TarError, OSError, ValueError) as error:
        raise LabFailed(f"the lab ended without results ({error})\n{_tail(boot)}") from error
    archive.unlink()
    return code


def _tail(boot: Boot) -> str:
    """The last lines of the console and of QEMU itself."""
    lines = []
    for path in (boot.console, boot.directory / "qemu.log"):
        if path.exists():
            text = path.read_text(errors="replace").splitlines()
            lines += [f"{path}:", *text[-TAIL_LINES:]]
    return "\n".join(lines)
