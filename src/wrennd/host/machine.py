"""A machine is what it holds: disk, slot, cgroup, VMM, guest agent; one ExitStack, newest first.

`Machine.boot` makes one from a base image, `Machine.restart` from the disk of one that was there,
`Machine.restore` from a snapshot, and `Machine.adopt` finds one that lives on. When it happens,
and with what, is decided in `host/local.py` and `host/lifecycle.py`; the steps are in
`host/making.py`.

Nothing on these stacks may be a suspended generator: see `Machine.detach`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Self

from wrennd.core.model import SandboxSpec
from wrennd.core.states import State
from wrennd.core.timings import Timings
from wrennd.host import record
from wrennd.host.envd_client import EnvdClient
from wrennd.host.making import GUEST_TIMEOUT_S, Ground, MakeDisk, Making, Step, no_step
from wrennd.host.pagers import Pager
from wrennd.host.record import Journal, Owner, Record
from wrennd.network.slot import Network
from wrennd.snapshot.manifest import VmmFacts
from wrennd.snapshot.reader import Snapshot
from wrennd.storage import overlay
from wrennd.storage.images import Image, Kernel
from wrennd.storage.layout import Layout
from wrennd.vmm import vm
from wrennd.vmm.program import Program
from wrennd.vmm.vm import Vm

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What machines are booted with on this host: chosen once, used for each. As `Ground`."""

    layout: Layout
    network: Network
    program: Program
    driver: overlay.Driver
    vmm: VmmFacts
    kernel: Kernel
    image: Image
    dns: tuple[IPv4Address, ...]
    guest_timeout_s: float = GUEST_TIMEOUT_S

    @property
    def ground(self) -> Ground:
        return Ground(
            layout=self.layout,
            network=self.network,
            program=self.program,
            driver=self.driver,
            vmm=self.vmm,
            dns=self.dns,
            guest_timeout_s=self.guest_timeout_s,
        )


class Machine:
    """A sandbox whose guest agent answers. `close()` lets go of it; it may be called twice.

    One that was made here ends with that, and, if it belongs to its process, with the thread that
    made it, SIGKILL included; `detach()` leaves it to the installation instead. One that was
    adopted is another process's, and goes on.
    """

    def __init__(
        self,
        journal: Journal,
        vm: Vm,
        envd: EnvdClient,
        held: ExitStack,
        pager: Pager | None = None,
        troubles: Sequence[str] = (),
    ) -> None:
        """troubles: what its guest could not change about itself, or its hooks could not."""
        self.journal = journal
        self.troubles = tuple(troubles)
        self.vm = vm
        self.envd = envd
        self._held = held
        self._pager = pager

    @property
    def spec(self) -> SandboxSpec:
        return spec_of(self.journal.record)

    @classmethod
    def boot(
        cls,
        spec: SandboxSpec,
        parts: Parts,
        timings: Timings,
        *,
        lives_on: bool = False,
        is_frozen_later: bool = False,
    ) -> Self:
        """Make the sandbox and wait until its agent is ready.

        is_frozen_later: also one that does not live on may be snapshotted.
        Phases: network, disk, vmm_start, vmm_configure, vmm_boot, guest. Errors: NoCapacity,
        HostUnsuitable, ImageBroken, VmmFailed, GuestFailed (with the console's last lines).
        """
        with ExitStack() as held:
            wanted = new_record(spec, lives_on=lives_on, image_digest=parts.image.digest)
            journal = record.make(held, parts.layout, wanted)
            making = Making(held, journal, parts.ground, timings, is_frozen_later=is_frozen_later)
            making.slot()
            making.disk(
                lambda driver, disk, uid: driver.create(
                    parts.image.rootfs, disk, uid=uid, disk_mib=spec.disk_mib
                )
            )
            return cls._booted(making, parts.kernel)

    @classmethod
    def restart(
        cls, journal: Journal, kernel: Kernel, ground: Ground, timings: Timings, make: MakeDisk
    ) -> Self:
        """Boot a sandbox that is there again, in RESUMING: with the disk that `make` makes, or
        finds; its memory is a new one.

        Phases and errors: as of `boot`; whatever fails, the disk is as `make` says.
        """
        with ExitStack() as held:
            making = Making(held, journal, ground, timings)
            making.run_dir()
            making.slot()
            making.disk(make, is_kept=True)
            return cls._booted(making, kernel)

    @classmethod
    def restore(
        cls,
        journal: Journal,
        snapshot: Snapshot,
        ground: Ground,
        timings: Timings,
        *,
        step: Step = no_step,
    ) -> Self:
        """Let a sandbox that is there, in RESUMING, go on where the snapshot has left its guest.

        `step` is told the name of each of making.STEPS when it is done. Phases: network, disk,
        pager, vmm_start, vmm_load, guest, thaw. Errors: as of `boot`, SnapshotBroken.
        """
        with ExitStack() as held:
            making = Making(held, journal, ground, timings, step)
            making.run_dir()
            return cls._restored(making, snapshot, env=None)

    @classmethod
    def spawn(
        cls,
        wanted: Record,
        share: Callable[[Path], Snapshot],
        ground: Ground,
        timings: Timings,
        *,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """Make a new sandbox of a snapshot, which `share` links to a directory of its own.

        env: None leaves the guest's as it was frozen. Phases and errors: as of `restore`.
        """
        with ExitStack() as held:
            journal = record.make(held, ground.layout, wanted)
            with timings.phase("share"):
                snapshot = share(journal.paths.generation(1))
                journal.update(generation=1)
            return cls.wake(held, journal, snapshot, ground, timings, env=env)

    @classmethod
    def wake(
        cls,
        held: ExitStack,
        journal: Journal,
        snapshot: Snapshot,
        ground: Ground,
        timings: Timings,
        *,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """As `spawn`, of one whose directory is there with the snapshot in it; `held` unmakes it,
        and the rest of it when this fails."""
        return cls._restored(Making(held, journal, ground, timings), snapshot, env=env)

    @classmethod
    def _restored(
        cls, making: Making, snapshot: Snapshot, *, env: Mapping[str, str] | None
    ) -> Self:
        journal = making.journal
        making.slot()
        making.disk(
            lambda driver, disk, uid: driver.clone(
                snapshot.disk, disk, uid=uid, disk_mib=journal.record.disk_mib
            )
        )
        restored, envd, pager = making.restore(snapshot, env)
        making.grow(restored, envd, since=snapshot)
        journal.update(
            state=State.RUNNING,
            parent=journal.record.generation,
            needs_full=False,
            error="",
            guest_kernel=snapshot.manifest.facts.guest_kernel,
            **making.facts,
        )
        log.info(
            "sandbox restored", extra={"sandbox": journal.record.id, **making.timings.phases_ms}
        )
        return cls(journal, restored, envd, making.held.pop_all(), pager, making.troubles)

    @classmethod
    def _booted(cls, making: Making, kernel: Kernel) -> Self:
        booted, envd = making.boot(kernel)
        making.grow(booted, envd)
        making.journal.update(
            state=State.RUNNING, parent=0, needs_full=False, error="", **making.facts
        )
        name = making.journal.record.id
        log.info("sandbox booted", extra={"sandbox": name, **making.timings.phases_ms})
        return cls(making.journal, booted, envd, making.held.pop_all())

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

    def touched(self) -> bytes:
        """What its guest has touched of the snapshot that it was made of, for a later pager.

        Errors: VmmFailed, SnapshotBroken.
        """
        assert self._pager is not None, "only what was restored here has a pager of ours"
        return self._pager.touched()

    def close(self) -> None:
        self._held.close()

    def detach(self) -> None:
        """Let go of one that is to live on: nothing is unmade, only our descriptors are closed.

        The stack is dropped. What is on it are callbacks, which are then never called; a suspended
        generator would be ended by the garbage collector, and undo its part.
        """
        self._held.pop_all()
        self.vm.detach()
        if self._pager is not None:
            self._pager.detach()
        self.journal.close()


def spec_of(found: Record) -> SandboxSpec:
    return SandboxSpec(
        id=found.id,
        image=found.template,
        vcpus=found.vcpus,
        mem_mib=found.mem_mib,
        disk_mib=found.disk_mib,
        dns=found.dns,
        env=found.env,
        expiry=found.expiry,
    )


def new_record(spec: SandboxSpec, *, lives_on: bool, **more: Any) -> Record:
    """Of one that is to be made; what it is made with is filled in on the way."""
    now = datetime.now(UTC)
    return Record(
        id=spec.id,
        owner=Owner.INSTALLATION if lives_on else Owner.PROCESS,
        state=State.STARTING,
        template=spec.image,
        vcpus=spec.vcpus,
        mem_mib=spec.mem_mib,
        disk_mib=spec.disk_mib,
        dns=spec.dns,
        env=spec.env,
        created=now.isoformat(timespec="seconds"),
        revision=1,
        expiry=spec.expiry,
        expiry_set_ms=round(now.timestamp() * 1000),
        **more,
    )
