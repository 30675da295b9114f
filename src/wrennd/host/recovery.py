"""What follows when work on a sandbox was left half-way: it is finished, or undone.

For the holder of its lock, be it the command that failed or whoever finds that one died. Everything
here may be done again after it failed.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

from wrennd.core.errors import DeadlineExceeded, Error, GuestFailed
from wrennd.core.states import State
from wrennd.host import disk_watch, record, unmake
from wrennd.host.machine import Machine
from wrennd.host.making import Step, no_step
from wrennd.host.record import Journal, Owner
from wrennd.network.slot import Network
from wrennd.snapshot import store
from wrennd.snapshot.reader import exists
from wrennd.storage import dm, drivers
from wrennd.storage.layout import Layout
from wrennd.vmm import console

log = logging.getLogger(__name__)
KEPT_LINES = 200

# What a record says of a sandbox that has no VMM.
NOTHING_HELD: dict[str, Any] = {
    "slot": None,
    "address": "",
    "vmm_pid": None,
    "vmm_start_time": None,
    "pager_pid": None,
    "pager_start_time": None,
    "pending": 0,
}


def settle(layout: Layout, network: Network, journal: Journal, *, is_on_host: bool = True) -> bool:
    """Bring a sandbox to a state that lasts. True when something was changed.

    is_on_host: whether anything of it may be there that a paused one does not have.
    """
    found = journal.record
    bound = {"sandbox": found.id, "was": found.state}
    if found.owner is Owner.PROCESS or found.state in (State.STARTING, State.DESTROYING):
        unmake.unmake(layout, network, found.id)
        log.warning("reclaimed a sandbox whose owner died", extra=bound)
        return True
    if found.state is State.RUNNING:
        return _check_runs(layout, network, journal)
    if found.state.is_passing:
        _finish_or_undo(layout, network, journal)
        log.warning("finished what a command had left", extra=bound)
        return True
    if is_on_host:
        unmake.free(layout, network, found.id)
    if store.generations(journal.paths.data) != ([found.generation] if found.generation else []):
        drop_others(journal)
    return is_on_host


def _check_runs(layout: Layout, network: Network, journal: Journal) -> bool:
    """Of one that is said to run: if it does not, it is in error. True when anything was done."""
    was_kept = journal.record.pending > 0
    if was_kept:
        _end_checkpoint(journal)
    if not journal.record.is_vmm_alive:
        fail(layout, network, journal, _how_it_ended(journal))
    elif journal.record.is_pager_lost:
        fail(layout, network, journal, "the process that served its memory has ended")
    elif why := disk_watch.trouble_of(layout, journal.paths.disk):
        fail(layout, network, journal, why)
    else:
        return was_kept
    return True


def _end_checkpoint(journal: Journal) -> None:
    """Of one that went on while it was kept: its generation is there, or what there is of it goes,
    and its next one will be Full."""
    if exists(journal.paths.generation(journal.record.pending)):
        commit(journal)
    journal.update(pending=0)
    drop_others(journal)


def _finish_or_undo(layout: Layout, network: Network, journal: Journal) -> None:
    """Of one in the midst of a pause, a snapshot or a resume."""
    found = journal.record
    if found.state is State.RESUMING:
        undo_resume(layout, network, journal)
        return
    is_committed = found.pending > 0 and exists(journal.paths.generation(found.pending))
    if is_committed:
        commit(journal)
    try:
        machine = Machine.adopt(layout, journal.record)
    except (ProcessLookupError, FileNotFoundError):
        if is_committed and found.state is State.PAUSING:
            finish_pause(layout, network, journal)
        else:
            fail(layout, network, journal, f"its VMM ended while it was {found.state}")
        return
    try:
        let_go_on(layout, network, journal, machine)
    finally:
        machine.close()


def fail(layout: Layout, network: Network, journal: Journal, why: str) -> None:
    """Free a sandbox whose VMM is of no use any more; its disk and its console's end are kept."""
    lines = console.tail(journal.paths.run / "console.log", KEPT_LINES)
    if lines:
        journal.paths.last_console.write_text("\n".join(lines) + "\n")
    unmake.free(layout, network, journal.record.id)
    journal.update(state=State.ERROR, error=why, **NOTHING_HELD)
    log.info("a sandbox is in error", extra={"sandbox": journal.record.id, "why": why})


def commit(journal: Journal) -> None:
    """The pending generation is there: it is what the VM's memory goes on from."""
    number = journal.record.pending
    journal.update(generation=number, parent=number, needs_full=False)


def let_go_on(layout: Layout, network: Network, journal: Journal, machine: Machine) -> None:
    """Let the guest run on that was stopped for a pause or a snapshot; if it can't, it is in error.

    A generation that is not committed is removed. An agent that does not answer is no reason to
    end a guest: it may have been so before.
    """
    try:
        store.remove_leftovers(journal.paths.data)
        empty(journal.paths.out)
    except OSError as error:  # the VMM may write there while we do this
        log.warning("what a pause had made is not all removed", extra={"why": str(error)})
    dm.mend(layout.installation, journal.record.id)
    try:
        machine.vm.resume()
        _thaw(machine)
    except (Error, OSError) as error:
        why = f"its guest could not go on when a pause had failed: {error}"
        fail(layout, network, journal, why)
        return
    journal.update(state=State.RUNNING, pending=0)


def go_on(machine: Machine) -> None:
    """Let a guest run that stood still. Errors: VmmFailed, GuestFailed, DeadlineExceeded."""
    machine.vm.resume()
    _wake(machine)


def _wake(machine: Machine) -> None:
    """Its clock stood still with it; users' processes see it only when it is right again."""
    machine.envd.set_clock()
    machine.envd.unfreeze()


def _thaw(machine: Machine) -> None:
    """Errors: VmmFailed."""
    try:
        _wake(machine)
    except (GuestFailed, DeadlineExceeded) as error:
        log.warning("the guest's agent could not thaw it", extra={"why": str(error)})


def finish_pause(layout: Layout, network: Network, journal: Journal, step: Step = no_step) -> None:
    """Its new generation is committed: destroy the VM, then its disk, then older generations."""
    unmake.free(layout, network, journal.record.id)
    _remove_disk(layout, journal)
    step("freed")
    journal.update(state=State.PAUSED, **NOTHING_HELD)
    step("paused")
    drop_others(journal)
    step("dropped")


def _remove_disk(layout: Layout, journal: Journal) -> None:
    disk = journal.paths.disk
    drivers.of(layout, disk, journal.record.overlay).remove(disk)


def undo_resume(layout: Layout, network: Network, journal: Journal) -> None:
    """What was made for a new VM goes; the sandbox is paused or in error again, as it was."""
    unmake.free(layout, network, journal.record.id)
    paths, was_in_error = journal.paths, bool(journal.record.error)
    if paths.disk_before.exists():
        paths.disk_before.rename(paths.disk)
    elif not was_in_error:
        _remove_disk(layout, journal)
    journal.update(state=State.ERROR if was_in_error else State.PAUSED, **NOTHING_HELD)


def drop_others(journal: Journal) -> None:
    """Remove every generation but the newest, and what drafts of others were left."""
    paths = journal.paths
    store.remove_leftovers(paths.data)
    empty(paths.out)
    for number in store.generations(paths.data):
        if number != journal.record.generation:
            store.remove(paths.generation(number))


def empty(directory: Path) -> None:
    """Remove what a VMM left in the directory that is its own. Nothing happens without one."""
    if not directory.exists():
        return
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _how_it_ended(journal: Journal) -> str:
    if journal.record.boot_id != record.host_boot_id():
        return "the host was restarted while it ran"
    words = "; ".join(console.tail(journal.paths.run / "vmm.log", 3))
    return "its guest was shut down, or its VMM ended" + (f" ({words})" if words else "")
