"""Unmake what dead owners left: run at every start, and by a guard when its command was killed.

Only this installation's things are seen, and of those only what no living process owns: a
sandbox's `owner.lock` that can be taken proves that its owner is dead (`host/record.py`).
Order: the VMM first (nothing may run on a disk or link that goes), then network, disk, files.
"""

import contextlib
import logging
import os
import signal
from pathlib import Path

from wrennd.core.deadline import Deadline
from wrennd.core.errors import Error
from wrennd.core.ids import SANDBOX_ID
from wrennd.host import record
from wrennd.host.record import Record
from wrennd.linux import process
from wrennd.linux.cgroup import Hierarchy
from wrennd.network import leftovers
from wrennd.network.slot import Network
from wrennd.storage.layout import Layout

log = logging.getLogger(__name__)
KILL_TIMEOUT_S = 10.0


def reclaim(layout: Layout, network: Network) -> list[str]:
    """Unmake every sandbox of this installation whose owner is dead; the ids of those that were.

    One that can't be unmade is logged and left for the next time: it must not keep others from
    being made.
    """
    done = []
    for found in sorted(leftovers.find(network) | _cgroups(layout) | _directories(layout)):
        try:
            if reclaim_one(layout, network, found):
                done.append(found)
        except (OSError, Error):
            log.exception("a sandbox can't be reclaimed", extra={"sandbox": found})
    if done:
        leftovers.sweep(network)
    return done


def reclaim_one(layout: Layout, network: Network, sandbox_id: str) -> bool:
    """Unmake one sandbox unless its owner lives. True when something was there to unmake."""
    paths = layout.sandbox(sandbox_id)
    with record.taken_over(layout, paths) as is_ours:
        # Its owner may also have ended in good order since it was seen.
        if not is_ours or not _is_there(layout, network, sandbox_id):
            return False
        kill_vmm(layout, sandbox_id)
        leftovers.remove(network, sandbox_id)
        remove_cgroup(layout, sandbox_id)
        record.remove(layout, paths)
    log.warning("reclaimed a sandbox whose owner died", extra={"sandbox": sandbox_id})
    return True


def _is_there(layout: Layout, network: Network, sandbox_id: str) -> bool:
    in_files = _directories(layout) | _cgroups(layout)
    return sandbox_id in in_files or sandbox_id in leftovers.find(network)


def kill_vmm(layout: Layout, sandbox_id: str) -> None:
    """SIGKILL the VMM by its cgroup, and by its recorded pid where there is no cgroup2."""
    hierarchy = Hierarchy.find()
    if hierarchy is not None:
        hierarchy.group(group_name(layout), sandbox_id).kill()
    try:
        found = Record.decode(layout.sandbox(sandbox_id).record.read_bytes())
    except (FileNotFoundError, ValueError):
        return
    if found.vmm_pid is None or found.vmm_start_time is None:
        return
    if process.is_alive(found.vmm_pid, found.vmm_start_time):
        process.kill_and_wait(
            found.vmm_pid, found.vmm_start_time, signal.SIGKILL, Deadline.after(KILL_TIMEOUT_S)
        )


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


def _directories(layout: Layout) -> set[str]:
    return _ids_in(layout.sandboxes) | _ids_in(layout.run_dir)


def _ids_in(directory: Path) -> set[str]:
    """Names like a sandbox's. The directory may go while it is read."""
    try:
        return {name for name in os.listdir(directory) if SANDBOX_ID.fullmatch(name)}  # noqa: PTH208
    except FileNotFoundError:
        return set()
