"""Bring sandboxes that nobody is at work on to a state that lasts: run before anything is made,
and by a guard when its command was killed.

Only this installation's things are seen, and of those only what no living process holds: a
sandbox's `owner.lock` that can be taken proves it (`host/record.py`). What belonged to a process,
and what was being made or destroyed, is unmade whole. What the installation keeps is left alone
while it runs or is paused; one whose VMM is gone loses what else it had on the host, but for its
disk, and is in the state `error` from then on.

Order of unmaking: the VMM first (nothing may run on a disk or link that goes), then network,
cgroup, files.
"""

import contextlib
import logging
import os
import signal
from pathlib import Path

from wrennd.core.deadline import Deadline
from wrennd.core.errors import Error, NotFound, WrongState
from wrennd.core.ids import SANDBOX_ID
from wrennd.core.states import State
from wrennd.host import record
from wrennd.host.record import Journal, Owner, Record
from wrennd.linux import process
from wrennd.linux.cgroup import Hierarchy
from wrennd.network import leftovers
from wrennd.network.addressing import FIRST_UID
from wrennd.network.slot import Network
from wrennd.storage.layout import Layout
from wrennd.vmm import console

log = logging.getLogger(__name__)
KILL_TIMEOUT_S = 10.0
KEPT_LINES = 200


def reclaim(layout: Layout, network: Network) -> list[str]:
    """Settle every sandbox that nobody holds; the ids of those that were changed.

    One that can't be settled is logged and left for the next time: it must not keep others from
    being made.
    """
    on_host = leftovers.find(network) | _cgroups(layout) | _ids_in(layout.run_dir)
    done = []
    for found in sorted(on_host | ids(layout)):
        try:
            if reclaim_one(layout, network, found, is_on_host=found in on_host):
                done.append(found)
        except (OSError, Error):
            log.exception("a sandbox can't be reclaimed", extra={"sandbox": found})
    if done:
        leftovers.sweep(network)
    return done


def ids(layout: Layout) -> set[str]:
    """The ids of all sandboxes that there are records of, or should be."""
    return _ids_in(layout.sandboxes)


def reclaim_one(
    layout: Layout, network: Network, sandbox_id: str, *, is_on_host: bool = True
) -> bool:
    """Settle one sandbox unless somebody holds it. True when something was changed.

    is_on_host: whether anything of it may be there that a paused one does not have.
    """
    paths = layout.sandbox(sandbox_id)
    with record.taken_over(layout, paths) as is_ours:
        # Its owner may also have ended in good order since it was seen.
        if not is_ours or not _is_there(layout, network, sandbox_id):
            return False
        try:
            found = record.load(paths)
        except NotFound:
            unmake(layout, network, sandbox_id)
        except WrongState as error:
            # It may be a newer version's, and hold somebody's work.
            log.warning("a sandbox is left alone", extra={"sandbox": sandbox_id, "why": str(error)})
            return False
        else:
            return settle(layout, network, Journal(paths, found), is_on_host=is_on_host)
    log.warning("reclaimed a sandbox that was never made", extra={"sandbox": sandbox_id})
    return True


def settle(layout: Layout, network: Network, journal: Journal, *, is_on_host: bool = True) -> bool:
    """Bring a sandbox whose lock we hold to a state that lasts. True when something was changed."""
    found = journal.record
    bound = {"sandbox": found.id}
    if found.owner is Owner.PROCESS or found.state in (State.STARTING, State.DESTROYING):
        unmake(layout, network, found.id)
        log.warning("reclaimed a sandbox whose owner died", extra=bound)
        return True
    if found.state is State.RUNNING:
        if found.is_vmm_alive:
            return False
        fail(layout, network, journal, _how_it_ended(journal))
        return True
    if is_on_host:
        free(layout, network, found.id)
    return is_on_host


def unmake(layout: Layout, network: Network, sandbox_id: str) -> None:
    """Remove all that there is of one sandbox. May be called again after it failed."""
    free(layout, network, sandbox_id)
    record.remove(layout, layout.sandbox(sandbox_id))


def free(layout: Layout, network: Network, sandbox_id: str) -> None:
    """Remove what a sandbox has on this host beside its directory: VMM, network, cgroup, sockets.

    May be called again after it failed.
    """
    kill_vmm(layout, sandbox_id)
    leftovers.remove(network, sandbox_id)
    remove_cgroup(layout, sandbox_id)
    record.remove_run_dir(layout, layout.sandbox(sandbox_id))


def fail(layout: Layout, network: Network, journal: Journal, why: str) -> None:
    """Free a sandbox whose VMM is of no use any more; its disk and its console's end are kept."""
    lines = console.tail(journal.paths.run / "console.log", KEPT_LINES)
    if lines:
        journal.paths.last_console.write_text("\n".join(lines) + "\n")
    free(layout, network, journal.record.id)
    journal.update(state=State.ERROR, error=why, **NOTHING_HELD)
    log.info("a sandbox is in error", extra={"sandbox": journal.record.id, "why": why})


# What a record says of a sandbox that has no VMM.
NOTHING_HELD: dict[str, object] = {
    "slot": None,
    "address": "",
    "vmm_pid": None,
    "vmm_start_time": None,
    "pager_pid": None,
    "pager_start_time": None,
}


def _how_it_ended(journal: Journal) -> str:
    if journal.record.boot_id != record.host_boot_id():
        return "the host was restarted while it ran"
    words = "; ".join(console.tail(journal.paths.run / "vmm.log", 3))
    return "its guest was shut down, or its VMM ended" + (f" ({words})" if words else "")


def _is_there(layout: Layout, network: Network, sandbox_id: str) -> bool:
    in_files = ids(layout) | _ids_in(layout.run_dir) | _cgroups(layout)
    return sandbox_id in in_files or sandbox_id in leftovers.find(network)


def kill_vmm(layout: Layout, sandbox_id: str) -> None:
    """SIGKILL the VMM by its cgroup; where there is no cgroup2, whatever has its slot's uid."""
    hierarchy = Hierarchy.find()
    if hierarchy is not None:
        hierarchy.group(group_name(layout), sandbox_id).kill()
    try:
        found = Record.decode(layout.sandbox(sandbox_id).record.read_bytes())
    except (FileNotFoundError, ValueError):
        return
    deadline = Deadline.after(KILL_TIMEOUT_S)
    if found.vmm_pid is not None and found.vmm_start_time is not None and found.is_vmm_alive:
        process.kill_and_wait(found.vmm_pid, found.vmm_start_time, signal.SIGKILL, deadline)
    if hierarchy is None and found.slot is not None and found.boot_id == record.host_boot_id():
        for pid, start_time in process.of_uid(FIRST_UID + found.slot):
            process.kill_and_wait(pid, start_time, signal.SIGKILL, deadline)


def remove_cgroup(layout: Layout, sandbox_id: str) -> None:
    """Remove the sandbox's cgroup, and the installation's when that was its last."""
    hierarchy = Hierarchy.find()
    if hierarchy is None:
        return
    hierarchy.group(group_name(layout), sandbox_id).remove(Deadline.after(KILL_TIMEOUT_S))
    with record.installation_lock(layout), contextlib.suppress(OSError):
        hierarchy.group(group_name(layout)).path.rmdir()  # fails while others are in it


def group_name(layout: Layout) -> str:
    return f"wrenn-{layout.installation}"


def _cgroups(layout: Layout) -> set[str]:
    hierarchy = Hierarchy.find()
    return set() if hierarchy is None else _ids_in(hierarchy.group(group_name(layout)).path)


def _ids_in(directory: Path) -> set[str]:
    """Names like a sandbox's. The directory may go while it is read."""
    try:
        return {name for name in os.listdir(directory) if SANDBOX_ID.fullmatch(name)}  # noqa: PTH208
    except FileNotFoundError:
        return set()
