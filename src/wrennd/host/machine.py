"""A machine is what it holds: disk, slot, cgroup, VMM, guest agent; one ExitStack, newest first.

`Machine.boot` makes one from a base image, `Machine.adopt` finds one that lives on. When it
happens, and with what, is decided in `host/local.py`. The record is written before each thing is
made, so that `host/reclaim.py` can unmake them after a crash.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded, GuestFailed, VmmFailed
from wrennd.core.model import SandboxSpec
from wrennd.core.states import State
from wrennd.core.timings import Timings
from wrennd.host import capacity, reclaim, record
from wrennd.host.boot_args import boot_args
from wrennd.host.envd_client import EnvdClient
from wrennd.host.record import Journal, Owner, Record
from wrennd.linux import files
from wrennd.linux.cgroup import Cgroup, Hierarchy
from wrennd.network.slot import Network, Slot, make_slot
from wrennd.storage import overlay
from wrennd.storage.images import Image, Kernel
from wrennd.storage.layout import Layout, SandboxPaths
from wrennd.vmm import vm
from wrennd.vmm.launch import MAX_TASKS, Cell
from wrennd.vmm.program import Program
from wrennd.vmm.vm import BootSpec, Vm

log = logging.getLogger(__name__)
SLOT_TIMEOUT_S = 30.0
# Emulated, on a busy host with two cores, a boot takes 10 s; alone it takes 2 s.
GUEST_TIMEOUT_S = 90.0
CPU_PERIOD_US = 100_000


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What machines are made of on this host: chosen once, used for each.

    guest_timeout_s: how long a guest may take from its start until its agent answers.
    """

    layout: Layout
    network: Network
    program: Program
    driver: overlay.Driver
    kernel: Kernel
    image: Image
    dns: tuple[IPv4Address, ...]
    guest_timeout_s: float = GUEST_TIMEOUT_S


class Machine:
    """A sandbox whose guest agent answers. `close()` lets go of it; it may be called twice.

    One that was booted ends with that, and, unless it is to live on, with the thread that booted
    it, SIGKILL included; `detach()` leaves it to the installation instead. One that was adopted is
    another process's, and goes on.
    """

    def __init__(self, journal: Journal, vm: Vm, envd: EnvdClient, held: ExitStack) -> None:
        self.journal = journal
        self.vm = vm
        self.envd = envd
        self._held = held

    @property
    def spec(self) -> SandboxSpec:
        return spec_of(self.journal.record)

    @classmethod
    def boot(
        cls, spec: SandboxSpec, parts: Parts, timings: Timings, *, lives_on: bool = False
    ) -> Self:
        """Make the sandbox and wait until its agent is ready.

        Phases: network, disk, vmm_start, vmm_configure, vmm_boot, guest. Errors: NoCapacity,
        HostUnsuitable, ImageBroken, VmmFailed, GuestFailed (with the console's last lines).
        """
        owner = Owner.INSTALLATION if lives_on else Owner.PROCESS
        # Nothing here may be a suspended generator: see `detach`.
        with ExitStack() as held:
            journal = record.make(held, parts.layout, _record(spec, parts, owner))
            slot = _slot(held, journal, parts, timings)
            with timings.phase("disk"):
                disk = parts.driver.create(parts.image.rootfs, journal.paths.disk, uid=slot.uid)
                held.callback(parts.driver.remove, journal.paths.disk)
            group = make_cgroup(held, parts.layout, spec.id, limits_of(spec))
            cell = _cell(parts, slot, disk, journal, group)
            booted = vm.start(held, parts.program, cell, _boot_spec(spec, slot), timings)
            journal.update(vmm_pid=booted.pid, vmm_start_time=booted.process.start_time)
            with timings.phase("guest"):
                envd = _reach_agent(spec, parts, booted, slot, journal.paths)
            journal.update(state=State.RUNNING)
            log.info("sandbox booted", extra={"sandbox": spec.id, **timings.phases_ms})
            return cls(journal, booted, envd, held.pop_all())

    @classmethod
    def adopt(cls, layout: Layout, found: Record) -> Self:
        """A running sandbox that the installation keeps, or another process owns.

        Errors: ProcessLookupError when its VMM has ended.
        """
        if found.vmm_pid is None or found.vmm_start_time is None:
            raise ProcessLookupError(f"sandbox {found.id} has no VMM")
        paths = layout.sandbox(found.id)
        with ExitStack() as held:
            adopted = vm.adopt(found.vmm_pid, found.vmm_start_time, paths.run)
            held.callback(adopted.detach)
            envd = EnvdClient(found.address, token=paths.token.read_text(), vmm_pidfd=adopted.pidfd)
            return cls(Journal(paths, found), adopted, envd, held.pop_all())

    def close(self) -> None:
        self._held.close()

    def detach(self) -> None:
        """Let go of one that is to live on: nothing is unmade, only our descriptors are closed."""
        self._held.pop_all()  # dropped: what was put on it are callbacks, which are never called
        self.vm.detach()
        self.journal.close()


def spec_of(found: Record) -> SandboxSpec:
    return SandboxSpec(
        id=found.id,
        image=found.template,
        vcpus=found.vcpus,
        mem_mib=found.mem_mib,
        dns=found.dns,
        env=found.env,
    )


def _record(spec: SandboxSpec, parts: Parts, owner: Owner) -> Record:
    return Record(
        id=spec.id,
        owner=owner,
        state=State.STARTING,
        template=spec.image,
        image_digest=parts.image.digest,
        kernel_digest=parts.kernel.digest,
        vmm=parts.program.name,
        tier=parts.program.tier,
        overlay=parts.driver.name,
        vcpus=spec.vcpus,
        mem_mib=spec.mem_mib,
        dns=spec.dns,
        env=spec.env,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        boot_id=record.host_boot_id(),
    )


def _slot(held: ExitStack, journal: Journal, parts: Parts, timings: Timings) -> Slot:
    with timings.phase("network"):
        slot = make_slot(
            held,
            parts.network,
            journal.record.id,
            dns=parts.dns,
            deadline=Deadline.after(SLOT_TIMEOUT_S),
        )
        journal.update(slot=slot.index, address=str(slot.address))
    return slot


def limits_of(spec: SandboxSpec) -> dict[str, str]:
    """What the VMM may use at most: its guest's share and what it needs itself."""
    cpus = spec.vcpus + 1  # one for device emulation, beside one for each vCPU
    return {
        "pids.max": str(MAX_TASKS),
        "memory.max": str((spec.mem_mib + capacity.VMM_OVERHEAD_MIB) << 20),
        "memory.swap.max": "0",
        "cpu.max": f"{cpus * CPU_PERIOD_US} {CPU_PERIOD_US}",
    }


@contextmanager
def cgroup_of(
    layout: Layout, sandbox_id: str, limits: Mapping[str, str]
) -> Iterator[Cgroup | None]:
    """As `make_cgroup`, for the length of a block."""
    with ExitStack() as held:
        yield make_cgroup(held, layout, sandbox_id, limits)


def make_cgroup(
    held: ExitStack, layout: Layout, sandbox_id: str, limits: Mapping[str, str]
) -> Cgroup | None:
    """The sandbox's cgroup, limited as far as there are controllers; None without cgroup2.

    What removes it, and kills what is in it, is put on `held`.
    """
    hierarchy = Hierarchy.find()
    if hierarchy is None:
        return None
    with record.installation_lock(layout):  # the last one to go removes the parent
        group = hierarchy.make(reclaim.group_name(layout), sandbox_id)
    held.callback(reclaim.remove_cgroup, layout, sandbox_id)
    for name, value in limits.items():
        group.limit(name, value)
    return group


def _cell(parts: Parts, slot: Slot, disk: Path, journal: Journal, group: Cgroup | None) -> Cell:
    return Cell(
        id=journal.record.id,
        uid=slot.uid,
        run_dir=journal.paths.run,
        kernel=parts.kernel.vmlinux,
        initrd=parts.kernel.initrd,
        disk=disk,
        netns=slot.netns_path,
        cgroup_procs=None if group is None else group.procs,
        dies_with_parent=journal.record.owner is Owner.PROCESS,
        # The largest files that it may write: its disk, and its guest's memory (a memfd).
        max_file_bytes=max(parts.image.size_bytes, journal.record.mem_mib << 20),
    )


def _boot_spec(spec: SandboxSpec, slot: Slot) -> BootSpec:
    return BootSpec(
        vcpus=spec.vcpus,
        mem_mib=spec.mem_mib,
        boot_args=boot_args(slot, hostname=spec.id),
        tap=slot.tap,
        mac=slot.guest_mac,
    )


def _reach_agent(
    spec: SandboxSpec, parts: Parts, booted: Vm, slot: Slot, paths: SandboxPaths
) -> EnvdClient:
    """A client whose agent has answered and knows its sandbox."""
    client = EnvdClient(str(slot.address), vmm_pidfd=booted.pidfd)
    token = os.urandom(20).hex()
    files.write_atomic(paths.token, token.encode())
    try:
        client.wait_ready(Deadline.after(parts.guest_timeout_s))
        client.init(token=token, sandbox_id=spec.id, env=spec.env)
    except (VmmFailed, GuestFailed, DeadlineExceeded) as error:
        raise GuestFailed(
            f"the guest did not get ready: {_reason(booted, error)}", hint=booted.console_hint()
        ) from error
    return client


def _reason(booted: Vm, error: Exception) -> str:
    """The VMM's end explains more than what the agent's client saw of it."""
    if booted.process.wait(Deadline.after(0.2)) is None:
        return str(error)
    return booted.describe_end()
