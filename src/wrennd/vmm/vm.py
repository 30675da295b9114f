"""One microVM over the Firecracker API: `boot` ends with its block, `start` with what it is put on.

What `start` puts on the caller's ExitStack are callbacks, no suspended generators: a stack that is
dropped (`pop_all`) ends nothing, and the VM lives on without us. `adopt` finds such a one again.
"""

import select
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded, VmmFailed
from wrennd.core.timings import Timings
from wrennd.linux.process import Adopted, Process
from wrennd.vmm import api, console, launch
from wrennd.vmm.client import ApiClient
from wrennd.vmm.launch import Cell, RestoreFiles
from wrennd.vmm.program import Program

# 0.3 s on an idle machine. One that ends is noticed at once, so this is for one that hangs, which
# none was seen to do; 20 s were too short for a Firecracker on a host that had other guests to run.
START_TIMEOUT_S = 60.0
POLL_S = 0.005
HINT_LINES = 12
INTERFACE = "eth0"
ROOT_DRIVE = "rootfs"
# Firecracker's serial output costs host CPU and disk: 256 KiB at once, then 64 KiB a second.
SERIAL_LIMIT = {"size": 64 << 10, "one_time_burst": 256 << 10, "refill_time": 1000}


@dataclass(frozen=True, kw_only=True)
class BootSpec:
    """What the guest is made of. `tap` and `mac` empty: no network. `has_disk` false: no drive."""

    vcpus: int
    mem_mib: int
    boot_args: str
    tap: str = ""
    mac: str = ""
    has_disk: bool = True

    def resources(self, serial: api.Serial) -> Iterator[api.Resource]:
        """The calls that configure the machine, in order."""
        yield api.MachineConfig(vcpu_count=self.vcpus, mem_size_mib=self.mem_mib)
        yield serial
        yield api.BootSource(
            kernel_image_path=launch.KERNEL,
            initrd_path=launch.INITRD,
            boot_args=self.boot_args,
        )
        # Not the root device in Firecracker's sense: our initrd mounts it by root=/dev/vda.
        if self.has_disk:
            yield api.Drive(drive_id=ROOT_DRIVE, path_on_host=launch.STABLE_DISK)
        if self.tap:
            yield api.NetworkInterface(
                iface_id=INTERFACE, host_dev_name=self.tap, guest_mac=self.mac or None
            )
        yield api.Entropy()


@dataclass(frozen=True, kw_only=True)
class RestoreSpec:
    """How a guest is restored from the cell's `RestoreFiles`; what it is made of is in them.

    Its memory comes from their file, or, if there is none, from the pager that listens on
    `uffd.sock` in the run directory, and that the VMM's uid may connect to. tap: what its
    interface is to be on, "" for the tap that it was on. resume: false to leave it paused.
    """

    tap: str = ""
    resume: bool = True

    def resource(self, files: RestoreFiles) -> api.SnapshotLoad:
        if files.memory is None:
            backend = api.MemBackend(backend_type="Uffd", backend_path=launch.PAGER_SOCKET)
        else:
            backend = api.MemBackend(backend_type="File", backend_path=launch.IN_MEMORY)
        taps = (api.NetworkOverride(iface_id=INTERFACE, host_dev_name=self.tap),)
        return api.SnapshotLoad(
            snapshot_path=launch.IN_STATE,
            mem_backend=backend,
            resume_vm=self.resume,
            network_overrides=taps if self.tap else (),
        )


class SnapshotKind(StrEnum):
    """Firecracker's names."""

    DIFF = "Diff"
    FULL = "Full"


@dataclass(frozen=True, kw_only=True)
class SnapshotFiles:
    """What a VMM wrote. The directory is its own: open them with O_NOFOLLOW, and only once the
    VMM has ended or you can tell a regular file from something else."""

    state: Path
    memory: Path


@dataclass(frozen=True, kw_only=True)
class Vm:
    """A VMM with a guest. Owned by whoever started it; safe to look at from any thread."""

    process: Process | Adopted
    client: ApiClient
    run_dir: Path

    def pause(self) -> None:
        """Stop the vCPUs; it may be stopped already. Errors: as `ApiClient`."""
        self.client.send(api.VmState(state="Paused"))

    def resume(self) -> None:
        """Let the vCPUs go on; they may run already. Errors: as `ApiClient`."""
        self.client.send(api.VmState(state="Resumed"))

    def refresh_disk(self) -> None:
        """Have the guest told how long its disk is now. Errors: as `ApiClient`."""
        self.client.send(api.DriveChange(drive_id=ROOT_DRIVE, path_on_host=launch.STABLE_DISK))

    def snapshot(self, kind: SnapshotKind, out_dir: Path) -> SnapshotFiles:
        """Have a paused guest written to `out_dir`, which is its cell's, in place of what is there.

        A Diff holds, in a file as long as memory, the pages written since the last snapshot or the
        start; a hole is a page that was not. When this fails, nothing is forgotten: the next one
        has the same pages. Errors: as `ApiClient`; OSError.
        """
        files = SnapshotFiles(state=out_dir / "state", memory=out_dir / "memory")
        for path in (files.state, files.memory):  # a Diff would merge with what is there
            path.unlink(missing_ok=True)
        self.client.send(
            api.SnapshotCreate(
                snapshot_path=launch.OUT_STATE,
                mem_file_path=launch.OUT_MEMORY,
                snapshot_type=kind.value,
            )
        )
        return files

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def pidfd(self) -> int:
        """Readable once the VMM has ended."""
        return self.process.pidfd

    def console_tail(self, lines: int = HINT_LINES) -> list[str]:
        return console.tail(self.run_dir / "console.log", lines)

    def console_hint(self) -> str:
        """The console's last lines as a hint; empty when there are none."""
        lines = from_panic_on(self.console_tail(60))[-HINT_LINES:]
        return "the console's last lines:\n    " + "\n    ".join(lines) if lines else ""

    def describe_end(self) -> str:
        """One clause on how the VMM ended, or that it has not."""
        return describe_end(self.process, self.run_dir)

    def detach(self) -> None:
        """Let go of it: it runs on. May be called twice."""
        self.client.close()
        self.process.detach()


@contextmanager
def boot(program: Program, cell: Cell, spec: BootSpec, timings: Timings) -> Iterator[Vm]:
    """As `start`, for the length of a block. At its end the VMM is killed."""
    with ExitStack() as held:
        yield start(held, program, cell, spec, timings)


def start(held: ExitStack, program: Program, cell: Cell, spec: BootSpec, timings: Timings) -> Vm:
    """Start a VMM, configure it, start the guest. What kills the VMM is put on `held`.

    Phases: vmm_start, vmm_configure, vmm_boot. Errors: VmmFailed with the VMM's exit code and
    last words; VmmRefused when a call was answered with an error; DeadlineExceeded.
    """
    with _launched(held, program, cell, timings) as made:
        with timings.phase("vmm_configure"):
            for resource in spec.resources(serial_of(program)):
                made.client.send(resource)
        with timings.phase("vmm_boot"):
            made.client.send(api.Action(action_type="InstanceStart"))
    return made


@dataclass(frozen=True, kw_only=True)
class Calls:
    """What a restore calls on its way.

    while_starting: when the VMM is on its way, for what can be done in the time that this takes.
    before_load: with the VMM's pidfd, once it answers, to see to it that a pager is serving: the
    VMM itself needs pages before it answers.
    """

    while_starting: Callable[[], None] = lambda: None
    before_load: Callable[[int], None] = lambda _pidfd: None


NO_CALLS = Calls()


def restore(
    held: ExitStack,
    program: Program,
    cell: Cell,
    spec: RestoreSpec,
    timings: Timings,
    calls: Calls = NO_CALLS,
) -> Vm:
    """Start a VMM and load the snapshot of `cell.restore`. What kills the VMM is put on `held`.

    Phases: vmm_start, vmm_load. Errors: as `start`; a VMM that refuses a snapshot ends, too.
    """
    assert cell.restore is not None, "a cell to restore in has files to restore from"
    launched = _launched(held, program, cell, timings, calls.while_starting)
    with launched as made, timings.phase("vmm_load"):
        calls.before_load(made.pidfd)
        made.client.send(serial_of(program))
        made.client.send(spec.resource(cell.restore))
    return made


@contextmanager
def _launched(
    held: ExitStack,
    program: Program,
    cell: Cell,
    timings: Timings,
    while_starting: Callable[[], None] = lambda: None,
) -> Iterator[Vm]:
    """A VMM that answers, to be told what it is in this block; if it dies there, its last words
    are the error."""
    child = held.enter_context(launch.launch(program, cell))
    client = ApiClient(cell.run_dir / "api.sock")
    held.callback(client.close)
    try:
        with timings.phase("vmm_start"):
            while_starting()
            _wait_for_api(child, client, cell, Deadline.after(START_TIMEOUT_S))
        yield Vm(process=child, client=client, run_dir=cell.run_dir)
    except VmmFailed as error:
        if child.wait(Deadline.after(0.2)) is None:
            raise
        raise VmmFailed(describe_end(child, cell.run_dir)) from error
    # One that outlives us has nobody to look after its files: its run directory is their bound.
    if program.is_firecracker and cell.dies_with_parent:
        files = (cell.run_dir / "console.log", cell.run_dir / "vmm.log")
        held.enter_context(console.bounded(files, child.pidfd))


def adopt(pid: int, start_time: int, run_dir: Path) -> Vm:
    """A VM that another process of ours started. The caller detaches from it in the end.

    Errors: ProcessLookupError when that very process has ended.
    """
    return Vm(
        process=Adopted(pid, start_time),
        client=ApiClient(run_dir / "api.sock"),
        run_dir=run_dir,
    )


def serial_of(program: Program) -> api.Serial:
    """Where the console goes: Firecracker's to its stdout, and not faster than SERIAL_LIMIT."""
    if program.is_firecracker:
        return api.Serial(rate_limiter=SERIAL_LIMIT)
    return api.Serial(serial_out_path=launch.CONSOLE)


def from_panic_on(lines: list[str]) -> list[str]:
    """A panic's first line says why, and two dozen lines of registers and stack come after it."""
    for number, line in enumerate(lines):
        if "Kernel panic - not syncing" in line:
            return lines[number : number + 1]
    return lines


def describe_end(child: Process | Adopted, run_dir: Path) -> str:
    if not child.has_ended:
        return f"the VMM (pid {child.pid}) is still running"
    code = child.exit_code
    if code is None:  # only its parent learns it
        how = "ended"
    else:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    words = "; ".join(console.tail(run_dir / "vmm.log", 3))
    return f"the VMM {how}" + (f" ({words})" if words else "")


def _wait_for_api(child: Process, client: ApiClient, cell: Cell, deadline: Deadline) -> None:
    """Wait until the VMM answers. It binds its socket itself, so there is nothing to wait on but
    the socket's appearance; the pidfd ends the wait at once when the VMM dies instead."""
    socket_path = cell.run_dir / "api.sock"
    while True:
        if select.select([child.pidfd], [], [], POLL_S)[0]:
            child.wait(deadline)
            raise VmmFailed(describe_end(child, cell.run_dir))
        if socket_path.exists() and _answers(client):
            return
        if deadline.is_over:
            raise DeadlineExceeded(
                f"the VMM did not open its socket within {START_TIMEOUT_S:g} s",
                hint="the machine may be overloaded; the VMM's last words are in its vmm.log",
            )


def _answers(client: ApiClient) -> bool:
    """False while nobody listens yet: the file appears at bind, before listen."""
    try:
        client.describe()
    except VmmFailed as error:
        if isinstance(error.__cause__, ConnectionRefusedError):
            return False
        raise
    return True
