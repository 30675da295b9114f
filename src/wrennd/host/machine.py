"""A machine is what it holds: disk, slot, cgroup, VMM, guest agent; one ExitStack, newest first.

`Machine.boot` makes one from a base image. When it happens, and with what, is decided in
`host/local.py`. The record is written before each thing is made, so that `host/reclaim.py` can
unmake them after a crash.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded, GuestFailed, VmmFailed
from wrennd.core.model import SandboxSpec
from wrennd.core.timings import Timings
from wrennd.host import capacity, reclaim, record
from wrennd.host.boot_args import boot_args
from wrennd.host.envd_client import EnvdClient
from wrennd.host.record import Record
from wrennd.linux.cgroup import Cgroup, Hierarchy
from wrennd.network.slot import Network, Slot, open_slot
from wrennd.storage import overlay
from wrennd.storage.images import Image, Kernel
from wrennd.storage.layout import Layout
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
    """A sandbox whose guest agent answers. `close()` lets go of everything; it may be called twice.

    Booted machines end with the thread that booted them, SIGKILL included.
    """

    def __init__(self, spec: SandboxSpec, vm: Vm, envd: EnvdClient, held: ExitStack) -> None:
        self.spec = spec
        self.vm = vm
        self.envd = envd
        self._held = held

    @classmethod
    def boot(cls, spec: SandboxSpec, parts: Parts, timings: Timings) -> Self:
        """Make the sandbox and wait until its agent is ready.

        Phases: network, disk, vmm_start, vmm_configure, vmm_boot, guest. Errors: NoCapacity,
        HostUnsuitable, ImageBroken, VmmFailed, GuestFailed (with the console's last lines).
        """
        with ExitStack() as held:
            journal = held.enter_context(record.opened(parts.layout, _record(spec, parts)))
            with timings.phase("network"):
                slot = held.enter_context(
                    open_slot(
                        parts.network,
                        spec.id,
                        dns=parts.dns,
                        deadline=Deadline.after(SLOT_TIMEOUT_S),
                    )
                )
                journal.update(slot=slot.index)
            with timings.phase("disk"):
                disk = held.enter_context(
                    overlay.overlay(
                        parts.driver, parts.image.rootfs, journal.paths.disk, uid=slot.uid
                    )
                )
            group = held.enter_context(cgroup_of(parts.layout, spec.id, limits_of(spec)))
            booted = held.enter_context(
                vm.boot(
                    parts.program,
                    _cell(spec, parts, slot, disk, journal.paths.run, group),
                    _boot_spec(spec, slot),
                    timings,
                )
            )
            journal.update(vmm_pid=booted.pid, vmm_start_time=booted.process.start_time)
            with timings.phase("guest"):
                envd = _reach_agent(spec, parts, booted, slot)
            log.info("sandbox booted", extra={"sandbox": spec.id, **timings.phases_ms})
            return cls(spec, booted, envd, held.pop_all())

    def close(self) -> None:
        self._held.close()


def _record(spec: SandboxSpec, parts: Parts) -> Record:
    return Record(
        id=spec.id,
        image_digest=parts.image.digest,
        kernel_digest=parts.kernel.digest,
        vmm=parts.program.name,
        tier=parts.program.tier,
        overlay=parts.driver.name,
    )


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
    """The sandbox's cgroup, limited as far as there are controllers; None without cgroup2."""
    hierarchy = Hierarchy.find()
    if hierarchy is None:
        yield None
        return
    with record.installation_lock(layout):  # the last one to go removes the parent
        group = hierarchy.make(reclaim.group_name(layout), sandbox_id)
    try:
        for name, value in limits.items():
            group.limit(name, value)
        yield group
    finally:
        reclaim.remove_cgroup(layout, sandbox_id)


def _cell(
    spec: SandboxSpec,
    parts: Parts,
    slot: Slot,
    disk: Path,
    run_dir: Path,
    group: Cgroup | None,
) -> Cell:
    return Cell(
        id=spec.id,
        uid=slot.uid,
        run_dir=run_dir,
        kernel=parts.kernel.vmlinux,
        initrd=parts.kernel.initrd,
        disk=disk,
        netns=slot.netns_path,
        cgroup_procs=None if group is None else group.procs,
        dies_with_parent=True,
        # The largest files that it may write: its disk, and its guest's memory (a memfd).
        max_file_bytes=max(parts.image.size_bytes, spec.mem_mib << 20),
    )


def _boot_spec(spec: SandboxSpec, slot: Slot) -> BootSpec:
    return BootSpec(
        vcpus=spec.vcpus,
        mem_mib=spec.mem_mib,
        boot_args=boot_args(slot, hostname=spec.id),
        tap=slot.tap,
        mac=slot.guest_mac,
    )


def _reach_agent(spec: SandboxSpec, parts: Parts, booted: Vm, slot: Slot) -> EnvdClient:
    """A client whose agent has answered and knows its sandbox."""
    client = EnvdClient(str(slot.address), vmm_pidfd=booted.pidfd)
    try:
        client.wait_ready(Deadline.after(parts.guest_timeout_s))
        client.init(token=os.urandom(20).hex(), env={"WRENN_SANDBOX_ID": spec.id})
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
