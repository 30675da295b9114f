"""The steps in which a machine is made, each put on one stack to be undone, newest first.

The record says that one is being made before the first step, and everything that a step makes
carries the sandbox's id, so that `host/reclaim.py` can unmake it after a crash. What is put on the
stack are callbacks, never suspended generators: a stack that is dropped leaves the machine alone.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar

from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded, GuestFailed, VmmFailed
from wrennd.core.timings import Timings
from wrennd.host import pagers, record
from wrennd.host.boot_args import boot_args
from wrennd.host.envd_client import EnvdClient, import_rpc
from wrennd.host.group import limits_of, make_cgroup
from wrennd.host.pagers import Pager
from wrennd.host.patience import patiently
from wrennd.host.record import Journal, Owner
from wrennd.linux import files, process, schedstat
from wrennd.linux.cgroup import Cgroup
from wrennd.network.slot import Network, Slot, make_slot
from wrennd.snapshot.manifest import VmmFacts
from wrennd.snapshot.reader import Snapshot
from wrennd.storage import overlay
from wrennd.storage.images import Kernel
from wrennd.storage.layout import Layout
from wrennd.vmm import vm
from wrennd.vmm.launch import Cell, RestoreFiles
from wrennd.vmm.program import Program
from wrennd.vmm.vm import BootSpec, RestoreSpec, Vm

log = logging.getLogger(__name__)
SLOT_TIMEOUT_S = 120.0
# Emulated, on a busy host with two cores, a boot takes 10 s; alone it takes 2 s. What the VMM waits
# for a CPU is added.
GUEST_TIMEOUT_S = 90.0
# Between a pager's start and its VMM's handshake lies the VMM's start.
HANDSHAKE_TIMEOUT_S = vm.START_TIMEOUT_S + 40.0

# The names of the steps of a restore, in their order: what a test can fail at.
STEPS = ("run directory", "network", "disk", "cgroup", "pager", "vmm", "agent", "thawed")

Step = Callable[[str], None]
T = TypeVar("T")
# Makes a disk at a path, for a uid, or finds it there; says where a VMM finds it.
MakeDisk = Callable[[overlay.Driver, Path, int], overlay.Given]


def no_step(_name: str) -> None:
    """For who has no use for the steps' names."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What every machine of this host stands on.

    vmm: what its snapshots are said to be made by. dns: the resolvers that the guest may use.
    guest_timeout_s: how long a guest may take from its start until its agent answers, while its
    VMM gets the CPU that it wants (`host/patience.py`).
    """

    layout: Layout
    network: Network
    program: Program
    driver: overlay.Driver
    vmm: VmmFacts
    dns: tuple[IPv4Address, ...]
    guest_timeout_s: float = GUEST_TIMEOUT_S


@dataclass
class Making:
    """One machine on its way. The steps are called in the order in which they stand here.

    held: gets what undoes them. `step` is told the name of each when it is done. is_frozen_later:
    its VMM gets a directory to write snapshots to.
    """

    held: ExitStack
    journal: Journal
    ground: Ground
    timings: Timings
    step: Step = no_step
    is_frozen_later: bool = False

    def __post_init__(self) -> None:
        """What the record says of the machine once it runs: written at once, in the end. Until
        then all that there is of it can be found by its id."""
        self.facts: dict[str, Any] = {
            "boot_id": record.host_boot_id(),
            "vmm": self.ground.program.name,
            "tier": self.ground.program.tier,
            "overlay": self.ground.driver.name,
            "vmm_facts": asdict(self.ground.vmm),
            "resolvers": tuple(str(address) for address in self.ground.dns),
        }
        self.troubles: list[str] = []

    def run_dir(self) -> None:
        record.make_run_dir(self.ground.layout, self.journal.paths)
        self.held.callback(record.remove_run_dir, self.ground.layout, self.journal.paths)
        self.step("run directory")

    def slot(self) -> None:
        with self.timings.phase("network"):
            self._slot: Slot = make_slot(
                self.held,
                self.ground.network,
                self.journal.record.id,
                dns=self.ground.dns,
                deadline=Deadline.after(SLOT_TIMEOUT_S),
            )
        self.facts |= {"slot": self._slot.index, "address": str(self._slot.address)}
        self.step("network")

    def disk(self, make: MakeDisk, *, is_kept: bool = False) -> None:
        """is_kept: it stays when the machine is unmade."""
        with self.timings.phase("disk"):
            path = self.journal.paths.disk
            self._disk = make(self.ground.driver, path, self._slot.uid)
            if not is_kept:
                self.held.callback(self.ground.driver.remove, path)
        self.step("disk")

    def boot(self, kernel: Kernel) -> tuple[Vm, EnvdClient]:
        """Phases: vmm_start, vmm_configure, vmm_boot, guest."""
        self.facts |= {"kernel_digest": kernel.digest, "guest_kernel": kernel.version}
        found = self.journal.record
        spec = BootSpec(
            vcpus=found.vcpus,
            mem_mib=found.mem_mib,
            boot_args=boot_args(self._slot, hostname=found.id),
            tap=self._slot.tap,
            mac=self._slot.guest_mac,
        )
        cell = self._cell(self._cgroup(), kernel=kernel)
        booted = vm.start(self.held, self.ground.program, cell, spec, self.timings)
        self.facts |= {"vmm_pid": booted.pid, "vmm_start_time": booted.process.start_time}
        with self.timings.phase("guest"):
            envd = EnvdClient(str(self._slot.address), vmm_pidfd=booted.pidfd)
            with _explained(booted):
                self._patiently(envd.wait_ready)
                envd.init(token=self._new_token(), sandbox_id=found.id, env=found.env)
        return booted, envd

    def restore(
        self, snapshot: Snapshot, env: Mapping[str, str] | None
    ) -> tuple[Vm, EnvdClient, Pager]:
        """Phases: pager, vmm_start, vmm_load, guest, thaw."""
        group = self._cgroup()
        with self.timings.phase("pager"):
            pager = self._pager(snapshot, group)

        def get_ready(vmm_pidfd: int) -> None:
            pager.watch(vmm_pidfd)
            pager.wait_ready(Deadline.after(HANDSHAKE_TIMEOUT_S))

        restored = self._load(pager, self._cell(group, snapshot=snapshot), get_ready)
        self.facts |= {"vmm_pid": restored.pid, "vmm_start_time": restored.process.start_time}
        self.step("vmm")
        with _explained(restored):
            with self.timings.phase("guest"):
                envd = EnvdClient(
                    str(self._slot.address),
                    token=snapshot.read_token(),
                    vmm_pidfd=restored.pidfd,
                )
                token = self._new_token()
                told = self._patiently(
                    lambda deadline: envd.init(
                        token=token,
                        sandbox_id=self.journal.record.id,
                        env=env,
                        restored=True,
                        deadline=deadline,
                    )
                )
            for warning in told.warnings:
                log.warning("the guest is not wholly itself", extra={"what": warning})
                self.troubles.append(warning)
            self.step("agent")
            with self.timings.phase("thaw"):
                hooks = envd.unfreeze()
            for hook in hooks:
                if not hook.is_ok:
                    log.warning("a hook failed", extra={"hook": hook.name, "how": hook.status})
                    self.troubles.append(f"the hook {hook.name} failed: {hook.status}")
        self.step("thawed")
        return restored, envd, pager

    def _patiently(self, ask: Callable[[Deadline], T]) -> T:
        """Ask a guest that gets ready, as long as that may take here. Errors: those of `ask`."""

        def waited_s() -> float:
            pids = (pid for pid, _ in process.of_uid(self._slot.uid))
            return max(map(schedstat.waited_s, pids), default=0.0)

        return patiently(ask, self.ground.guest_timeout_s, waited_s)

    def _load(self, pager: Pager, cell: Cell, get_ready: Callable[[int], None]) -> Vm:
        spec = RestoreSpec(tap=self._slot.tap)
        program = self.ground.program
        try:
            calls = vm.Calls(while_starting=import_rpc, before_load=get_ready)
            return vm.restore(self.held, program, cell, spec, self.timings, calls)
        except VmmFailed:
            # A pager that can't serve kills the VMM, and says why: SnapshotBroken.
            with contextlib.suppress(VmmFailed, DeadlineExceeded):
                pager.stats()
            raise

    def grow(self, guest: Vm, envd: EnvdClient, *, since: Snapshot | None = None) -> None:
        """Let the guest use all of a disk that is longer than what it was made of; one that was
        restored knows the disk of the snapshot, and must be told. Phase: grow."""
        if not self.journal.record.disk_mib:
            return
        size = self.ground.driver.size(self.journal.paths.disk)
        if since is not None and size == self.ground.driver.size(since.disk):
            return
        with self.timings.phase("grow"):
            if since is not None:
                guest.refresh_disk()
            envd.grow(size)

    def _cgroup(self) -> Cgroup | None:
        found = self.journal.record
        limits = limits_of(found.vcpus, found.mem_mib)
        group = make_cgroup(self.held, self.ground.layout, found.id, limits)
        self.step("cgroup")
        return group

    def _pager(self, snapshot: Snapshot, group: Cgroup | None) -> Pager:
        place = pagers.Place(
            run_dir=self.journal.paths.run,
            uid=self._slot.uid,
            cgroup_procs=None if group is None else group.procs,
            dies_with_parent=self._ends_with_us,
            has_balloon=False,
            handshake_timeout_s=HANDSHAKE_TIMEOUT_S,
        )
        pager = pagers.start(self.held, pagers.Source.of(snapshot), place)
        self.facts |= {"pager_pid": pager.pid, "pager_start_time": pager.start_time}
        self.step("pager")
        return pager

    def _cell(
        self,
        group: Cgroup | None,
        *,
        kernel: Kernel | None = None,
        snapshot: Snapshot | None = None,
    ) -> Cell:
        paths, found = self.journal.paths, self.journal.record
        if self._writes_snapshots:
            paths.out.mkdir(mode=0o700, exist_ok=True)
        return Cell(
            id=found.id,
            uid=self._slot.uid,
            run_dir=paths.run,
            kernel=None if kernel is None else kernel.vmlinux,
            initrd=None if kernel is None else kernel.initrd,
            disk=self._disk,
            netns=self._slot.netns_path,
            cgroup_procs=None if group is None else group.procs,
            dies_with_parent=self._ends_with_us,
            # The largest files that it may write: its disk, and its guest's memory (a memfd).
            max_file_bytes=max(self.ground.driver.size(paths.disk), found.mem_mib << 20),
            out_dir=paths.out if self._writes_snapshots else None,
            restore=None if snapshot is None else RestoreFiles(state=snapshot.state, memory=None),
        )

    @property
    def _ends_with_us(self) -> bool:
        return self.journal.record.owner is Owner.PROCESS

    @property
    def _writes_snapshots(self) -> bool:
        return self.is_frozen_later or not self._ends_with_us

    def _new_token(self) -> str:
        """Kept before the guest is told, so that it is known whatever happens next."""
        token = os.urandom(20).hex()
        files.write_atomic(self.journal.paths.token, token.encode())
        return token


@contextmanager
def _explained(guest: Vm) -> Iterator[None]:
    """A guest that does not get ready is its VMM's end, or said with its console's last lines."""
    try:
        yield
    except (VmmFailed, GuestFailed, DeadlineExceeded) as error:
        raise GuestFailed(
            f"the guest did not get ready: {_reason(guest, error)}", hint=guest.console_hint()
        ) from error


def _reason(guest: Vm, error: Exception) -> str:
    """The VMM's end explains more than what the agent's client saw of it."""
    if guest.process.wait(Deadline.after(0.2)) is None:
        return str(error)
    return guest.describe_end()
