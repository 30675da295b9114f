"""Pause, resume and snapshot of a sandbox whose lock we hold: in which order, and what if not.

A pause: the guest's users are frozen and its disk is synced, the vCPUs stop, the VMM writes what
has changed, and that becomes the next generation, in one step. Until then any failure lets the
guest go on, with its previous generation as it was. Then the VM is destroyed, then its disk, slot
and sockets go, then the previous generation; a pause that dies on the way is finished by
`host/recovery.py`.

A resume changes nothing of the generation that it starts from: whatever fails, what was made for
the new VM is unmade, and the sandbox is what it was before.

A snapshot of a sandbox that goes on is a pause that is left before the end: the generation becomes
its own newest one before it runs again, since its VM counts changes from there on.
"""

import errno
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from wrennd.core.errors import (
    Error,
    GuestFailed,
    NoCapacity,
    SnapshotIncompatible,
    VmmRefused,
    WrongState,
)
from wrennd.core.states import State, require
from wrennd.core.timings import Timings
from wrennd.host import disk_watch, pagers, recovery, vmm_facts
from wrennd.host.machine import Machine
from wrennd.host.making import Ground, Step, no_step
from wrennd.host.record import Journal, Record
from wrennd.linux import files
from wrennd.network.slot import Network
from wrennd.snapshot import chain, collapse, store
from wrennd.snapshot.manifest import Facts
from wrennd.snapshot.reader import DISK, Snapshot, open_snapshot
from wrennd.snapshot.validity import Here, compatible
from wrennd.storage import drivers, overlay
from wrennd.storage.images import Kernel
from wrennd.storage.layout import Layout
from wrennd.vmm.vm import SnapshotKind

log = logging.getLogger(__name__)
FREEZE_S = 10.0

# The names of the steps, in their order: what a test can fail at. Those of CAPTURE come in a pause
# and in a snapshot, those of PARTING in a pause only.
CAPTURE = ("begun", "frozen", "stopped", "written", "state", "memory", "disk", "token", "committed")
PARTING = ("freed", "paused", "dropped", "collapsed")


class Lifecycle:
    """What is done to one sandbox that is kept, by the holder of its lock.

    `step` is told the name of each step when it is done. max_incremental: with how many
    incremental generations a chain is left as it is.
    """

    def __init__(
        self,
        layout: Layout,
        network: Network,
        journal: Journal,
        step: Step = no_step,
        *,
        max_incremental: int = collapse.MAX_INCREMENTAL,
    ) -> None:
        self._layout = layout
        self._network = network
        self._journal = journal
        self._step = step
        self._max_incremental = max_incremental

    def pause(self, timings: Timings) -> None:
        """Errors: WrongState, GuestFailed, NoCapacity, VmmFailed: the sandbox goes on."""
        with self._captured(State.PAUSING, timings):
            pass
        with timings.phase("end"):
            recovery.finish_pause(self._layout, self._network, self._journal, self._step)
        with timings.phase("collapse"):
            self._collapse()

    def snapshot(self, timings: Timings) -> Snapshot:
        """The sandbox goes on from its new generation, which is returned. Errors: as of `pause`."""
        with self._captured(State.SNAPSHOTTING, timings) as (machine, snapshot):
            with timings.phase("resume"):
                machine.vm.resume()
                machine.envd.unfreeze()
            self._journal.update(state=State.RUNNING, pending=0)
        recovery.drop_others(self._journal)
        return snapshot

    def resume(
        self,
        choose: Callable[[Facts], tuple[Ground, Here]],
        timings: Timings,
        *,
        discard: bool = False,
    ) -> None:
        """From its newest generation; `discard` also what is in error, whose later work is lost.

        choose: with what a snapshot of such facts is restored here.
        Errors: WrongState, SnapshotBroken, SnapshotIncompatible, and those of `Machine.restore`:
        the sandbox is what it was.
        """
        found = self._journal.record
        wanted = (State.PAUSED, State.ERROR) if discard else (State.PAUSED,)
        require(found.id, found.state, *wanted, reason=found.error)
        with timings.phase("prepare"):
            snapshot = self.newest()
            ground, here = choose(snapshot.manifest.facts)
            check_fits(snapshot.manifest.facts, here, f"sandbox {found.id}")
        with self._resuming() as finish:
            paths = self._journal.paths
            if paths.disk.exists():
                paths.disk.rename(paths.disk_before)
            machine = Machine.restore(self._journal, snapshot, ground, timings, step=self._step)
            finish(machine)
        paths.disk_before.unlink(missing_ok=True)

    def restart(self, choose: Callable[[Record], tuple[Ground, Kernel]], timings: Timings) -> None:
        """Boot from its disk: that of its newest generation, or, in error, as it is.

        Errors: as of `Machine.restart`: the sandbox is what it was.
        """
        found, paths = self._journal.record, self._journal.paths
        require(found.id, found.state, State.PAUSED, State.ERROR, reason=found.error)
        with timings.phase("prepare"):
            ground, kernel = choose(found)
        kept = paths.generation(found.generation) / DISK

        if found.state is State.ERROR:
            driver = drivers.of(self._layout, paths.disk, found.overlay)
            ground = replace(ground, driver=driver)

        def make_disk(driver: overlay.Driver, disk: Path, uid: int) -> overlay.Given:
            if found.state is State.PAUSED:
                return driver.clone(kept, disk, uid=uid)
            return driver.reopen(disk, uid=uid)

        with self._resuming() as finish:
            finish(Machine.restart(self._journal, kernel, ground, timings, make_disk))

    @contextmanager
    def _resuming(self) -> Iterator[Callable[[Machine], None]]:
        """The block makes a machine and hands it over; without one the sandbox is as it was."""
        with ExitStack() as undo:
            undo.callback(recovery.undo_resume, self._layout, self._network, self._journal)
            self._journal.update(state=State.RESUMING)

            def finish(machine: Machine) -> None:
                undo.pop_all()
                machine.detach()

            yield finish

    def newest(self) -> Snapshot:
        """Errors: WrongState when it has never been snapshotted; SnapshotBroken."""
        found = self._journal.record
        if not found.generation:
            raise WrongState(
                f"sandbox {found.id} has no snapshot",
                hint=f"wrenn resume --cold {found.id} boots it from its disk",
            )
        return open_snapshot(self._journal.paths.generation(found.generation))

    @contextmanager
    def _captured(self, state: State, timings: Timings) -> Iterator[tuple[Machine, Snapshot]]:
        """The guest stands still in this block, its new generation is committed.

        Phases: freeze, stop, write, keep.
        """
        journal = self._journal
        require(journal.record.id, journal.record.state, State.RUNNING, reason=journal.record.error)
        # All of its memory at worst; what that is indeed, only the VMM knows.
        disk_watch.check_volume(self._layout, journal.record.mem_mib << 20)
        machine = Machine.adopt(self._layout, journal.record)
        with ExitStack() as held:
            held.callback(machine.close)
            needs_full = journal.record.needs_full
            # Until the commit: from the VMM's answer on only it knows what has changed since the
            # last generation.
            journal.update(state=state, pending=next_number(journal), needs_full=True)
            with ExitStack() as undo:
                undo.callback(recovery.let_go_on, self._layout, self._network, journal, machine)
                self._step("begun")
                with ExitStack() as unasked:
                    unasked.callback(journal.update, needs_full=needs_full)
                    self._stop(machine, timings)
                    unasked.pop_all()
                snapshot = self._commit(machine, timings, needs_full=needs_full)
                self._step("committed")
                undo.pop_all()
            yield machine, snapshot

    def _stop(self, machine: Machine, timings: Timings) -> None:
        with timings.phase("freeze"):
            if not machine.envd.freeze(FREEZE_S):
                raise GuestFailed(
                    f"the guest did not come to rest within {FREEZE_S:g} s",
                    hint="a process may hang in a system call, or the disk be busy; try again",
                )
        self._step("frozen")
        with timings.phase("stop"):
            machine.vm.pause()
        self._step("stopped")

    def _commit(self, machine: Machine, timings: Timings, *, needs_full: bool) -> Snapshot:
        """What the guest is at this moment, as its next generation."""
        journal, paths = self._journal, self._journal.paths
        found = journal.record
        # Where holes are not exact, pages that a Diff leaves out would look like zeroed ones.
        is_diff = not needs_full and files.has_exact_holes(paths.out)
        parent = open_snapshot(paths.generation(found.parent)) if is_diff and found.parent else None
        # Only pauses collapse: snapshots of a guest that goes on may fill the header.
        if parent is not None and not chain.has_room(parent.header):
            is_diff, parent = False, None
        with timings.phase("write"):
            kind = SnapshotKind.DIFF if is_diff else SnapshotKind.FULL
            with _full_disk_named(paths.out):
                written = machine.vm.snapshot(kind, paths.out)
        self._step("written")
        with timings.phase("keep"), store.draft(paths.generation(found.pending)) as made:
            made.take_state(written.state)
            self._step("state")
            made.take_memory(written.memory, parent=parent, mem_mib=found.mem_mib)
            self._step("memory")
            drivers.of(self._layout, paths.disk, found.overlay).snapshot(paths.disk, made.disk)
            self._step("disk")
            made.write_token(paths.token.read_text())
            self._keep_working_set(made)
            self._step("token")
            snapshot = made.commit(facts_of(found))
        recovery.commit(journal)
        return snapshot

    def _keep_working_set(self, made: store.Draft) -> None:
        """What the guest touched since it was resumed, for the pager of the next time."""
        found = self._journal.record
        if found.pager_pid is None or found.pager_start_time is None:
            return
        try:
            pager = pagers.adopt(found.pager_pid, found.pager_start_time, self._journal.paths.run)
        except ProcessLookupError as error:
            log.warning("the pager is lost", extra={"sandbox": found.id, "why": str(error)})
            return
        with ExitStack() as held:
            held.callback(pager.detach)
            made.write_touched(pager.touched())

    def _collapse(self) -> None:
        """Merge a chain that became too long. When that fails it is as good as before."""
        journal = self._journal
        long = open_snapshot(journal.paths.generation(journal.record.generation))
        if not collapse.is_due(long.manifest, self._max_incremental):
            return
        number = next_number(journal)
        try:
            collapse.collapse(long, journal.paths.generation(number))
        except (Error, OSError) as error:
            log.warning(
                "a chain of snapshots stays long",
                extra={"sandbox": journal.record.id, "why": str(error)},
            )
            return
        journal.update(generation=number)
        recovery.drop_others(journal)
        self._step("collapsed")


@contextmanager
def _full_disk_named(directory: Path) -> Iterator[None]:
    """Firecracker has no code for it: of a full disk its words tell, which are the system's."""
    try:
        yield
    except VmmRefused as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise NoCapacity(
            f"the filesystem of {directory} is full: the guest's memory could not be written",
            hint="free some space: wrenn snapshot ls and wrenn ls --all say what there is",
        ) from error


def next_number(journal: Journal) -> int:
    return max([journal.record.generation, *store.generations(journal.paths.data)]) + 1


def facts_of(found: Record, name: str = "") -> Facts:
    """What a snapshot's manifest says of a sandbox; `taken_over` reads it back."""
    extra = {
        "resolvers": ",".join(found.resolvers),
        "env": json.dumps(dict(found.env)),
        "image_digest": found.image_digest,
        "kernel_digest": found.kernel_digest,
    }
    return Facts(
        vmm=vmm_facts.decode(dict(found.vmm_facts)),
        tier=found.tier,
        cpu_model=vmm_facts.cpu_model(),
        host_kernel=os.uname().release,
        guest_kernel=found.guest_kernel,
        template=found.template,
        sandbox=found.id,
        overlay=found.overlay,
        vcpus=found.vcpus,
        mem_mib=found.mem_mib,
        name=name,
        extra=extra,
    )


def check_fits(facts: Facts, here: Here, what: str) -> None:
    """Errors: SnapshotIncompatible, with all reasons. What is different but may be is logged."""
    found = compatible(facts, here)
    if found.refusals:
        raise SnapshotIncompatible(
            f"{what} can't be restored here: {'; '.join(found.refusals)}",
            hint="the memory is of no use here; a sandbox can be booted from its disk: "
            "wrenn resume --cold ID",
        )
    for warning in found.warnings:
        log.info("a snapshot is restored elsewhere", extra={"what": what, "difference": warning})
