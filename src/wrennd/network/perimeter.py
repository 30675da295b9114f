"""What slots share on the host: the installation's table, and forwarding for the uplinks.

It stands before the first slot's namespace is made and falls with the last lease. Callers hold
the slots' lock, so that one process's last slot and another's first don't meet.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Self

from wrennd.core.errors import HostUnsuitable
from wrennd.linux import links, nftables, routes
from wrennd.linux.rtnetlink import Rtnetlink
from wrennd.network import forwarding
from wrennd.network.addressing import LINK_GROUP, table_name
from wrennd.network.firewall import host_rules
from wrennd.network.lease import Leases

# Asked for their route only, nothing is sent there: two, because some VPNs replace the default
# route by its two halves.
INTERNET = (IPv4Address("1.1.1.1"), IPv4Address("203.0.113.1"))
# What guests believe in (virtio's default); a veth larger than that serves nobody.
MAX_MTU = 1500


@dataclass(frozen=True, kw_only=True)
class Ways:
    """The links by which packets leave the host, and the least MTU among them (bytes)."""

    uplinks: tuple[str, ...]
    mtu: int

    @classmethod
    def find(cls, rt: Rtnetlink, resolvers: Iterable[IPv4Address]) -> Self:
        """The links to the internet and to the resolvers, as the routes are now."""
        indexes = {_way(rt, address) for address in (*INTERNET, *resolvers)} - {0}
        found = [links.by_index(rt, index) for index in indexes]
        there = [link for link in found if link is not None and link.name != "lo"]
        return cls(
            uplinks=tuple(sorted(link.name for link in there)),
            mtu=min([MAX_MTU, *(link.mtu for link in there)]),
        )


def _way(rt: Rtnetlink, address: IPv4Address) -> int:
    try:
        route = routes.lookup(rt, address)
    except OSError:  # a route that forbids: blackhole, prohibit
        return 0
    return route.link if route else 0


def establish(installation: str, ways: Ways) -> None:
    """Load the installation's table (again) and make the uplinks forward.

    Errors: HostUnsuitable without nft or a writable /proc/sys.
    """
    off = forwarding.switched_off(ways.uplinks)
    try:
        nftables.apply(host_rules(installation) + forwarding.guard(off))
    except FileNotFoundError:
        raise HostUnsuitable(
            "the program nft, which loads firewall rules, is not installed",
            hint="apt-get install nftables",
        ) from None
    for link in off:
        forwarding.switch_on(link)


def dismantle_unused(installation: str, leases: Leases) -> None:
    """Remove the table when the installation has no lease left, forwarding when nobody has."""
    if leases.leased(installation):
        return
    nftables.delete_table(table_name(installation))
    if leases.all():
        return
    with Rtnetlink() as rt:
        if any(link.group == LINK_GROUP for link in links.links(rt)):
            return
    forwarding.undo()
