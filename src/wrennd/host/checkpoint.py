"""A checkpoint: what a running guest is at one moment, kept as its sandbox's next generation.

`Checkpoints.stopped` keeps it of a guest that stands still until its caller decides what becomes of
it: a pause. `Checkpoints.passing` keeps it of one that goes on: it stands still for as long as it
takes to write its memory and to clone its disk, and what was written becomes a generation while it
is RUNNING again, with a pending generation.

**A guest that goes on goes on from its own newest generation**, and its VMM counts changes from the
moment at which it had written. From then until the generation is committed the record says
`needs_full`: whatever breaks off in between, its next snapshot holds all of its memory, and asks
nobody what has changed. Who dies after the commit, and before the record says so, leaves a
generation of the pending number: `host/recovery.py` finds it, and then it is the parent.

For the holder of the sandbox's lock.
"""

import errno
import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from wrennd.core.errors import GuestFailed, NoCapacity, VmmRefused
from wrennd.core.states import State, require
from wrennd.core.timings import Timings
from wrennd.host import disk_watch, pagers, recovery, vmm_facts
from wrennd.host.machine import Machine
from wrennd.host.making import Step, no_step
from wrennd.host.record import Journal, Record
from wrennd.linux import files
from wrennd.network.slot import Network
from wrennd.snapshot import chain, store
from wrennd.snapshot.manifest import Facts
from wrennd.snapshot.reader import Snapshot, open_snapshot
from wrennd.storage import drivers
from wrennd.storage.layout import Layout
from wrennd.vmm.vm import SnapshotFiles, SnapshotKind

log = logging.getLogger(__name__)
FREEZE_S = 10.0

# The names of the steps, in their order: what a test can fail at. A guest that goes on does so
# behind its disk's.
WRITING = ("begun", "frozen", "stopped", "written", "disk")
GOING_ON = "going on"
KEEPING = ("state", "memory", "token", "committed")
STOPPED = (*WRITING, *KEEPING)
PASSING = (*WRITING, GOING_ON, *KEEPING)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Those of one sandbox. `step` is told the name of each step when it is done."""

    layout: Layout
    network: Network
    journal: Journal
    step: Step = no_step

    @contextmanager
    def stopped(self, timings: Timings) -> Iterator[None]:
        """The guest stands still in this block and behind it, its new generation is committed.

        Phases: freeze, stop, write, disk, keep. Errors: WrongState, GuestFailed, NoCapacity,
        VmmFailed: it goes on.
        """
        with self._begun(State.PAUSING) as (machine, needs_full, undo):
            self._take(machine, timings, needs_full=needs_full, goes_on=False)
            undo.pop_all()
            yield

    def passing(self, timings: Timings) -> Snapshot:
        """Its new generation, from which the guest goes on already.

        Phases and errors: as of `stopped`; and `resume`, behind `disk`.
        """
        with self._begun(State.SNAPSHOTTING) as (machine, needs_full, undo):
            snapshot = self._take(machine, timings, needs_full=needs_full, goes_on=True)
            undo.pop_all()
        self.journal.update(pending=0)
        recovery.drop_others(self.journal)
        return snapshot

    @contextmanager
    def _begun(self, state: State) -> Iterator[tuple[Machine, bool, ExitStack]]:
        """The machine, whether all of its memory is to be written, and what lets it go on."""
        journal = self.journal
        require(journal.record.id, journal.record.state, State.RUNNING, reason=journal.record.error)
        # All of its memory at worst; what that is indeed, only the VMM knows.
        disk_watch.check_volume(self.layout, journal.record.mem_mib << 20)
        machine = Machine.adopt(self.layout, journal.record)
        with ExitStack() as held:
            held.callback(machine.close)
            needs_full = journal.record.needs_full
            # From the VMM's answer on only it knows what has changed since the last generation.
            journal.update(state=state, pending=next_number(journal), needs_full=True)
            undo = held.enter_context(ExitStack())
            undo.callback(recovery.let_go_on, self.layout, self.network, journal, machine)
            yield machine, needs_full, undo

    def _take(
        self, machine: Machine, timings: Timings, *, needs_full: bool, goes_on: bool
    ) -> Snapshot:
        journal, paths = self.journal, self.journal.paths
        with ExitStack() as unasked:
            unasked.callback(journal.update, needs_full=needs_full)
            self.step("begun")
            kind, parent = self._base(needs_full=needs_full)
            self._stop(machine, timings)
            unasked.pop_all()
        with store.draft(paths.generation(journal.record.pending)) as made:
            written = self._write(machine, made, timings, kind, is_synced=not goes_on)
            if goes_on:
                with timings.phase("resume"):
                    recovery.go_on(machine)
                journal.update(state=State.RUNNING)
                self.step(GOING_ON)
            with timings.phase("keep"):
                snapshot = self._keep(written, made, parent)
        recovery.commit(journal)
        self.step("committed")
        return snapshot

    def _base(self, *, needs_full: bool) -> tuple[SnapshotKind, Snapshot | None]:
        """What the VMM is to write, and what that is on top of (None: of zeros)."""
        found, paths = self.journal.record, self.journal.paths
        # Where holes are not exact, pages that a Diff leaves out would look like zeroed ones.
        if needs_full or not files.has_exact_holes(paths.out):
            return SnapshotKind.FULL, None
        if not found.parent:
            return SnapshotKind.DIFF, None
        parent = open_snapshot(paths.generation(found.parent))
        # Only pauses collapse: snapshots of a guest that goes on may fill the header.
        if not chain.has_room(parent.header):
            return SnapshotKind.FULL, None
        return SnapshotKind.DIFF, parent

    def _stop(self, machine: Machine, timings: Timings) -> None:
        with timings.phase("freeze"):
            if not machine.envd.freeze(FREEZE_S):
                raise GuestFailed(
                    f"the guest did not come to rest within {FREEZE_S:g} s",
                    hint="a process may hang in a system call, or the disk be busy; try again",
                )
        self.step("frozen")
        with timings.phase("stop"):
            machine.vm.pause()
        self.step("stopped")

    def _write(
        self,
        machine: Machine,
        made: store.Draft,
        timings: Timings,
        kind: SnapshotKind,
        *,
        is_synced: bool,
    ) -> SnapshotFiles:
        """All that has to be done while it stands still.

        is_synced: false leaves the disk to be synced with the rest, at the commit.
        """
        paths = self.journal.paths
        with timings.phase("write"), _full_disk_named(paths.out):
            written = machine.vm.snapshot(kind, paths.out)
        self.step("written")
        with timings.phase("disk"):
            driver = drivers.of(self.layout, paths.disk, self.journal.record.overlay)
            driver.snapshot(paths.disk, made.disk, is_synced=is_synced)
        self.step("disk")
        return written

    def _keep(self, written: SnapshotFiles, made: store.Draft, parent: Snapshot | None) -> Snapshot:
        """What was written, as the next generation. The directory that it was written to is the
        VMM's own, which may run: the draft reads it as a stranger's."""
        found, paths = self.journal.record, self.journal.paths
        made.take_state(written.state)
        self.step("state")
        made.take_memory(written.memory, parent=parent, mem_mib=found.mem_mib)
        self.step("memory")
        made.write_token(paths.token.read_text())
        self._keep_working_set(made)
        self.step("token")
        return made.commit(facts_of(found))

    def _keep_working_set(self, made: store.Draft) -> None:
        """What the guest touched since it was resumed, for the pager of the next time."""
        found = self.journal.record
        if found.pager_pid is None or found.pager_start_time is None:
            return
        try:
            pager = pagers.adopt(found.pager_pid, found.pager_start_time, self.journal.paths.run)
        except ProcessLookupError as error:
            log.warning("the pager is lost", extra={"sandbox": found.id, "why": str(error)})
            return
        with ExitStack() as held:
            held.callback(pager.detach)
            made.write_touched(pager.touched())


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
    """What a snapshot's manifest says of a sandbox; who makes another of it reads it back."""
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
