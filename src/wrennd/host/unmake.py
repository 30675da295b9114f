"""Remove what a sandbox has on this host, by its id and its record: as its maker would have done,
had it lived.

Order: the VMM first (nothing may run on a disk or link that goes), then the disk's device, network,
cgroup, files.
Everything may be done again after it failed.
"""

import contextlib
import signal

from wrennd.core.deadline import Deadline
from wrennd.core.timings import Timings
from wrennd.host import record
from wrennd.host.record import Record
from wrennd.linux import process
from wrennd.linux.cgroup import Hierarchy
from wrennd.network import leftovers
from wrennd.network.addressing import FIRST_UID
from wrennd.network.slot import Network
from wrennd.storage import dm
from wrennd.storage.layout import Layout

KILL_TIMEOUT_S = 10.0


def unmake(
    layout: Layout, network: Network, sandbox_id: str, timings: Timings | None = None
) -> None:
    """Remove all that there is of one sandbox."""
    timings = timings or Timings()
    free(layout, network, sandbox_id, timings)
    with timings.phase("files"):
        record.remove(layout, layout.sandbox(sandbox_id))


def free(layout: Layout, network: Network, sandbox_id: str, timings: Timings | None = None) -> None:
    """Remove what a sandbox has beside its directory: VMM, device, network, cgroup, sockets."""
    timings = timings or Timings()
    with timings.phase("vmm_end"):
        dm.mend(layout.installation, sandbox_id)  # who waits for a disk that stands can't be killed
        kill_vmm(layout, network, sandbox_id)
    with timings.phase("disk"):
        dm.release(layout.installation, sandbox_id)
    with timings.phase("network"):
        leftovers.remove(network, sandbox_id)
    with timings.phase("cgroup"):
        remove_cgroup(layout, sandbox_id)
    with timings.phase("files"):
        record.remove_run_dir(layout, layout.sandbox(sandbox_id))
        _reap(layout, sandbox_id)


def _reap(layout: Layout, sandbox_id: str) -> None:
    """Of a VMM and pager that this very process started, and let live on, something is left."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = Record.decode(layout.sandbox(sandbox_id).record.read_bytes())
        for pid, started in (
            (found.vmm_pid, found.vmm_start_time),
            (found.pager_pid, found.pager_start_time),
        ):
            if pid is not None and started is not None:
                process.reap(pid, started)


def kill_vmm(layout: Layout, network: Network, sandbox_id: str) -> None:
    """SIGKILL the VMM and its pager by their cgroup; where there is no cgroup2, all that has the
    uid of the sandbox's slot."""
    hierarchy = Hierarchy.find()
    if hierarchy is not None:
        hierarchy.group(group_name(layout), sandbox_id).kill()
    deadline = Deadline.after(KILL_TIMEOUT_S)
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = Record.decode(layout.sandbox(sandbox_id).record.read_bytes())
        if found.vmm_pid is not None and found.vmm_start_time is not None and found.is_vmm_alive:
            process.kill_and_wait(found.vmm_pid, found.vmm_start_time, signal.SIGKILL, deadline)
    if hierarchy is None:
        for lease in network.leases.leased(network.installation):
            if lease.sandbox_id == sandbox_id:
                for pid, start_time in process.of_uid(FIRST_UID + lease.index):
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
