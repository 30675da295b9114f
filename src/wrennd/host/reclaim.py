"""Unmake what dead owners left: run at every start, and by a guard when its command was killed.

Only this installation's things are seen, and of those only what no living process owns: a
sandbox's `owner.lock` that can be taken proves that its owner is dead (`host/record.py`).
Order: the VMM first (nothing may run on a disk or link that goes), then network, disk, files.
"""

import contextlib
import logging
import os
import signal

from wrennd.core.deadline import Deadline
from wrennd.core.ids import SANDBOX_ID
from wrennd.host import record
from wrennd.host.record import Record
from wrennd.linux import files, process
from wrennd.linux.cgroup import Hierarchy
from wrennd.network import leftovers
from wrennd.network.slot import Network
from wrennd.storage.layout import Layout

log = logging.getLogger(__name__)
KILL_TIMEOUT_S = 10.0


def reclaim(layout: Layout, network: Network) -> list[str]:
    """Unmake every sandbox of this installation whose owner is dead; their ids.

    What the kernel holds is listed before the owners are asked: a sandbox made meanwhile is in
    neither list or alive in the second.
    """
    seen = leftovers.find(network) | _cgroups(layout) | _directories(layout)
    done = [found for found in sorted(seen) if reclaim_one(layout, network, found)]
    if done:
        leftovers.sweep(network)
    return done


def reclaim_one(layout: Layout, network: Network, sandbox_id: str) -> bool:
    """Unmake one sandbox unless its owner lives. True when something was unmade."""
    paths = layout.sandbox(sandbox_id)
    with contextlib.ExitStack() as held:
        try:
            lock = os.open(paths.owner_lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            if paths.data.exists() and not _is_abandoned(layout, paths.data):
                return False
        else:
            held.callback(os.close, lock)
            if not files.try_lock(lock):
                return False
        kill_vmm(layout, sandbox_id)
        leftovers.remove(network, sandbox_id)
        remove_cgroup(layout, sandbox_id)
        record.remove(layout, paths)
    log.warning("reclaimed a sandbox whose owner died", extra={"sandbox": sandbox_id})
    return True


def _is_abandoned(layout: Layout, data: os.PathLike[str]) -> bool:
    """A directory without a lock file: its maker died, unless it is between its two steps now."""
    with files.locked(layout.sandboxes / ".lock"):
        return "owner.lock" not in os.listdir(data)  # noqa: PTH208 - names only


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
    with contextlib.suppress(OSError):  # others are in it, or it is gone
        hierarchy.group(group_name(layout)).path.rmdir()


def group_name(layout: Layout) -> str:
    return f"wrenn-{layout.installation}"


def _cgroups(layout: Layout) -> set[str]:
    hierarchy = Hierarchy.find()
    if hierarchy is None:
        return set()
    path = hierarchy.group(group_name(layout)).path
    return {p.name for p in path.glob("*/") if SANDBOX_ID.fullmatch(p.name)}


def _directories(layout: Layout) -> set[str]:
    parents = (layout.sandboxes, layout.run_dir)
    return {p.name for parent in parents for p in parent.glob("*/") if SANDBOX_ID.fullmatch(p.name)}
