"""Pause, resume and snapshot of a sandbox whose lock we hold: in which order, and what if not.

A pause: the guest's users are frozen and its disk is synced, the vCPUs stop, the VMM writes what
has changed, and that becomes the next generation, in one step. Until then any failure lets the
guest go on, with its previous generation as it was. Then the VM is destroyed, then its disk, slot
and sockets go, then the previous generation; a pause that dies on the way is finished by
`host/recovery.py`.

A resume changes nothing of the generation that it starts from: whatever fails, what was made for
the new VM is unmade, and the sandbox is what it was before.

How a generation is made of a running guest, of one that goes on too, is in `host/checkpoint.py`.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from wrennd.core.errors import Error, SnapshotIncompatible, WrongState
from wrennd.core.states import State, require
from wrennd.core.timings import Timings
from wrennd.host import recovery
from wrennd.host.checkpoint import Checkpoints, next_number
from wrennd.host.machine import Machine
from wrennd.host.making import Ground, Step, no_step
from wrennd.host.record import Journal, Record
from wrennd.network.slot import Network
from wrennd.snapshot import collapse
from wrennd.snapshot.manifest import Facts
from wrennd.snapshot.reader import DISK, Snapshot, open_snapshot
from wrennd.snapshot.validity import Here, compatible
from wrennd.storage import drivers, overlay
from wrennd.storage.images import Kernel
from wrennd.storage.layout import Layout

log = logging.getLogger(__name__)

# The names of the steps that follow a checkpoint in a pause, in their order: what a test can fail
# at.
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
        with self._checkpoints.stopped(timings):
            pass
        with timings.phase("end"):
            recovery.finish_pause(self._layout, self._network, self._journal, self._step)
        with timings.phase("collapse"):
            self._collapse()

    def snapshot(self, timings: Timings) -> Snapshot:
        """The sandbox goes on from its new generation, which is returned. Errors: as of `pause`."""
        return self._checkpoints.passing(timings)

    @property
    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(
            layout=self._layout, network=self._network, journal=self._journal, step=self._step
        )

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
