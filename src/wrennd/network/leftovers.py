"""What sandboxes of an installation left in the kernel and in the lease directory, and its removal.

For a crash: `find` tells of which sandboxes something is there, `remove` takes away all of one.
Whether a sandbox still lives is for the caller to know, and its processes are for the caller to
end first. Nothing of another installation is ever touched.
"""

from wrennd.core.deadline import Deadline
from wrennd.linux import links, netns
from wrennd.linux.rtnetlink import Rtnetlink
from wrennd.network import perimeter
from wrennd.network.addressing import (
    netns_name,
    sandbox_of_alias,
    sandbox_of_netns,
    slot_of_link,
)
from wrennd.network.slot import Network, release

_LOCK_S = 30.0


def find(network: Network) -> frozenset[str]:
    """The ids of sandboxes that have a lease, a namespace or a link. Changes nothing."""
    installation = network.installation
    found = {
        sandbox
        for name in netns.names()
        if (sandbox := sandbox_of_netns(installation, name)) is not None
    }
    found |= {lease.sandbox_id for lease in network.leases.leased(installation)}
    return frozenset(found | {owner for owner in _links(network).values() if owner})


def remove(network: Network, sandbox_id: str) -> None:
    """Remove whatever is there of one sandbox, newest first. May be called again."""
    with Rtnetlink() as rt:
        for name, owner in _links(network).items():
            if owner == sandbox_id:
                links.delete(rt, name)
    netns.remove(netns.NETNS_DIR / netns_name(network.installation, sandbox_id))
    release(network, sandbox_id)


def sweep(network: Network) -> None:
    """Remove what belongs to the installation but to no sandbox.

    That is a link without alias and lease, and the host's table and forwarding when they outlived
    the last lease. The lock keeps it from a slot that is being made: that has its lease first.
    """
    leases = network.leases
    with leases.lock(Deadline.after(_LOCK_S)), Rtnetlink() as rt:
        for name, owner in _links(network).items():
            if not owner:
                links.delete(rt, name)
        perimeter.dismantle_unused(network.installation, leases)


def _links(network: Network) -> dict[str, str]:
    """The installation's links and whose they are ("" when neither alias nor lease tells)."""
    installation = network.installation
    leased = {lease.index: lease.sandbox_id for lease in network.leases.leased(installation)}
    found = {}
    with Rtnetlink() as rt:
        for link in links.links(rt):
            index = slot_of_link(installation, link.name)
            if index is not None:
                owner = sandbox_of_alias(installation, link.alias)
                found[link.name] = owner or leased.get(index, "")
    return found
