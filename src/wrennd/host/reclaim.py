"""Bring sandboxes that nobody is at work on to a state that lasts: run before anything is made,
and by a guard when its command was killed.

Only this installation's things are seen, and of those only what no living process holds: a
sandbox's `owner.lock` that can be taken proves it (`host/record.py`). What belonged to a process,
and what was being made or destroyed, is unmade whole. What the installation keeps is left alone
while it runs or is paused, and what was left half-way is finished or undone (`host/recovery.py`).
"""

import logging
import os
from pathlib import Path

from wrennd.core.errors import Error, NotFound, WrongState
from wrennd.core.ids import SANDBOX_ID
from wrennd.host import record
from wrennd.host.record import Journal
from wrennd.host.recovery import settle
from wrennd.host.unmake import group_name, unmake
from wrennd.linux.cgroup import Hierarchy
from wrennd.network import leftovers
from wrennd.network.slot import Network
from wrennd.storage import dm
from wrennd.storage.layout import Layout

log = logging.getLogger(__name__)


def reclaim(layout: Layout, network: Network) -> list[str]:
    """Settle every sandbox that nobody holds; the ids of those that were changed.

    One that can't be settled is logged and left for the next time: it must not keep others from
    being made.
    """
    on_host = on_this_host(layout, network)
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


def on_this_host(layout: Layout, network: Network) -> set[str]:
    """The ids of sandboxes that have anything beside their directory."""
    devices = dm.attached(layout.installation)
    return {*devices, *leftovers.find(network), *_cgroups(layout), *_ids_in(layout.run_dir)}


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
            journal = Journal(paths, found)
            journal.cause = record.RECLAIM
            return settle(layout, network, journal, is_on_host=is_on_host)
    log.warning("reclaimed a sandbox that was never made", extra={"sandbox": sandbox_id})
    return True


def _is_there(layout: Layout, network: Network, sandbox_id: str) -> bool:
    is_known = layout.sandbox(sandbox_id).data.exists()
    return is_known or sandbox_id in on_this_host(layout, network)


def _cgroups(layout: Layout) -> set[str]:
    hierarchy = Hierarchy.find()
    return set() if hierarchy is None else _ids_in(hierarchy.group(group_name(layout)).path)


def _ids_in(directory: Path) -> set[str]:
    """Names like a sandbox's. The directory may go while it is read."""
    try:
        return {name for name in os.listdir(directory) if SANDBOX_ID.fullmatch(name)}  # noqa: PTH208
    except FileNotFoundError:
        return set()
