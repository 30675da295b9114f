"""A slot: the network namespace of one sandbox, with its links, addresses and rules.

`make_slot` puts what unmakes it on its caller's ExitStack, as plain callbacks: a stack that is
dropped (`pop_all`) leaves the slot in place, for `leftovers.remove` to unmake some day. `open_slot`
is the same for the length of a block. Nothing here changes the namespace of this process. What
several slots share on the host is `perimeter.py`'s.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from wrennd.core.deadline import Deadline
from wrennd.linux import links, netns, nftables, routes, sysctl, tun
from wrennd.linux.rtnetlink import Rtnetlink
from wrennd.network import forwarding, perimeter
from wrennd.network.addressing import (
    DEFAULT_POOL,
    GATEWAY_ADDRESS,
    GATEWAY_MAC,
    GUEST_ADDRESS,
    GUEST_MAC,
    GUEST_PREFIX,
    LINK_GROUP,
    TAP,
    UPLINK,
    Addressing,
    netns_name,
    slot_addresses,
    slots_in,
)
from wrennd.network.firewall import REFUSED, SlotRules
from wrennd.network.lease import Lease, Leases

# Routes shorter than this many bits are default routes in disguise (VPNs split 0/0 into parts).
MIN_ROUTE_BITS = 8

NAMESPACE_SYSCTLS = {
    "ipv4/ip_forward": 1,
    # The namespace answers ARP on each side for that side's address only.
    "ipv4/conf/all/arp_ignore": 1,
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/default/send_redirects": 0,
    "ipv4/conf/all/accept_redirects": 0,
    "ipv4/conf/default/accept_redirects": 0,
    # Refusals have a limit in the rules; the kernel's would be six, then one a second.
    "ipv4/icmp_ratelimit": 0,
}
NO_IPV6 = {"ipv6/conf/all/disable_ipv6": 1, "ipv6/conf/default/disable_ipv6": 1}

# The names of the steps, in their order: what a test can fail at.
STEPS = ("lease", "name", "perimeter", "namespace", "veth", "host end", "uplink", "tap", "rules")

# Of a lease without anything else: a slot that is made has more within milliseconds.
FORGOTTEN_S = 600.0

Step = Callable[[str], None]


def _no_step(_name: str) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Network:
    """Where an installation makes its slots. All of a host share the `run_root`, /run/wrenn."""

    installation: str
    run_root: Path
    pool: IPv4Network = DEFAULT_POOL

    @property
    def leases(self) -> Leases:
        return Leases(self.run_root)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """What a VMM and the host need to know of an open slot.

    address: where the host reaches the guest, on every port. uid: the only one that may open the
    TAP device. dns: the resolvers that the guest may use.
    """

    index: int
    netns_path: Path
    uid: int
    address: IPv4Address
    dns: tuple[IPv4Address, ...]
    tap: str = TAP
    guest_address: IPv4Address = GUEST_ADDRESS
    guest_prefix: int = GUEST_PREFIX
    gateway_address: IPv4Address = GATEWAY_ADDRESS
    guest_mac: str = GUEST_MAC


@contextmanager
def open_slot(
    network: Network,
    sandbox_id: str,
    *,
    dns: Sequence[IPv4Address],
    deadline: Deadline,
    step: Step = _no_step,
) -> Iterator[Slot]:
    """As `make_slot`, for the length of a block. Processes inside must have ended by its end."""
    with ExitStack() as held:
        yield make_slot(held, network, sandbox_id, dns=dns, deadline=deadline, step=step)


def make_slot(
    held: ExitStack,
    network: Network,
    sandbox_id: str,
    *,
    dns: Sequence[IPv4Address],
    deadline: Deadline,
    step: Step = _no_step,
) -> Slot:
    """Make a slot for a sandbox. What unmakes it, newest first, is put on `held`.

    `step` is told the name of each of STEPS when it is done. Errors: NoCapacity, HostUnsuitable,
    DeadlineExceeded, OSError.
    """
    with ExitStack() as opened:
        host = opened.enter_context(Rtnetlink())
        of = _lease(held, network, sandbox_id, host, deadline)
        step("lease")
        path = netns.reserve(of.netns)
        held.callback(netns.remove, path)
        step("name")
        with ExitStack() as making:
            child = making.enter_context(netns.Making(path, _sysctls()))
            ways = perimeter.Ways.find(host, dns)
            with network.leases.lock(deadline):
                perimeter.establish(network.installation, ways)
            step("perimeter")
            inside = child.finish(deadline)
            making.callback(os.close, inside.tun)
            there = making.enter_context(Rtnetlink(inside.route))
            step("namespace")
            _make_veth(host, of, path, ways.mtu)
            # Deleted by name, not left to the namespace's end: that comes some time later, and
            # the slot's next holder needs the name.
            held.callback(_delete_link, of.link)
            step("veth")
            _configure_host_end(host, of)
            step("host end")
            _configure_uplink(there, of)
            step("uplink")
            _configure_tap(there, inside.tun, of)
            step("tap")
        nftables.apply(_rules(host, of, dns).render(), inside=path)
        step("rules")
        return Slot(index=of.index, netns_path=path, uid=of.uid, address=of.address, dns=tuple(dns))


def _lease(
    held: ExitStack, network: Network, sandbox_id: str, host: Rtnetlink, deadline: Deadline
) -> Addressing:
    leases = network.leases
    with leases.lock(deadline):
        lease = leases.take(
            network.installation,
            sandbox_id,
            slots=slots_in(network.pool),
            is_free=lambda index: _is_unused(host, network.pool, index),
            is_forgotten=lambda lease: is_forgotten(network, lease),
        )
    held.callback(release, network, sandbox_id)
    return Addressing(
        installation=network.installation,
        sandbox_id=sandbox_id,
        index=lease.index,
        pool=network.pool,
    )


def release(network: Network, sandbox_id: str) -> None:
    """Give up a sandbox's lease, and what no slot needs any more."""
    leases = network.leases
    with leases.lock(Deadline.after(30)):  # undoing has a time of its own
        leases.release(network.installation, sandbox_id)
        perimeter.dismantle_unused(network.installation, leases)


def is_forgotten(network: Network, lease: Lease) -> bool:
    """Whether its sandbox has nothing on this host: no run directory, no namespace. So it is when
    somebody removed a data directory with sandboxes in it; and for a moment while a slot is made.
    """
    run = network.run_root / lease.installation / lease.sandbox_id
    name = netns.NETNS_DIR / netns_name(lease.installation, lease.sandbox_id)
    is_there = run.exists() or name.exists()
    return not is_there and network.leases.age_s(lease) > FORGOTTEN_S


def _is_unused(host: Rtnetlink, pool: IPv4Network, index: int) -> bool:
    """Whether no route of this host leads to the slot's addresses."""
    for address in slot_addresses(pool, index):
        try:
            route = routes.matching(host, address)
        except OSError:  # a route that forbids is one, too
            return False
        if route is not None and route.destination.prefixlen >= MIN_ROUTE_BITS:
            return False
    return True


def _sysctls() -> dict[str, int]:
    """Without IPv6 in the kernel there is nothing to turn off."""
    return NAMESPACE_SYSCTLS | (NO_IPV6 if sysctl.has("ipv6") else {})


def _make_veth(host: Rtnetlink, of: Addressing, path: Path, mtu: int) -> None:
    """The pair, made across the border: the namespace's end is never seen on the host."""
    port = links.Port(name=of.link, mac=of.host_mac, mtu=mtu, group=LINK_GROUP)
    peer = links.Port(name=UPLINK, mac=of.uplink_mac, mtu=mtu)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        links.add_veth(host, port, peer, peer_netns=fd)
    finally:
        os.close(fd)


def _delete_link(name: str) -> None:
    with Rtnetlink() as rt:
        links.delete(rt, name)


def _configure_host_end(host: Rtnetlink, of: Addressing) -> None:
    links.change(host, of.link, alias=of.alias)
    if sysctl.has("ipv6"):
        sysctl.write(f"ipv6/conf/{of.link}/disable_ipv6", 1)
    forwarding.switch_on(of.link)
    routes.add_address(host, _index(host, of.link), of.host_address, 31)
    links.set_up(host, of.link)


def _configure_uplink(there: Rtnetlink, of: Addressing) -> None:
    index = _index(there, UPLINK)
    routes.add_address(there, index, of.address, 31)
    links.set_up(there, UPLINK)
    routes.add_default(there, index, of.host_address)


def _configure_tap(there: Rtnetlink, device: int, of: Addressing) -> None:
    tun.make_tap(device, TAP, owner=of.uid)
    links.change(there, TAP, mac=GATEWAY_MAC)
    routes.add_address(there, _index(there, TAP), GATEWAY_ADDRESS, GUEST_PREFIX)
    links.set_up(there, TAP)


def _index(rt: Rtnetlink, name: str) -> int:
    link = links.find(rt, name)
    if link is None:
        raise OSError(f"the link {name} vanished while it was set up")
    return link.index


def _rules(host: Rtnetlink, of: Addressing, dns: Sequence[IPv4Address]) -> SlotRules:
    """The host's own addresses are refused inside too, for the time when its table is flushed."""
    own = (
        IPv4Network(address)
        for address in routes.addresses(host)
        if not any(address in network for network in REFUSED)
    )
    return SlotRules(
        host_address=of.host_address,
        address=of.address,
        resolvers=tuple(dns),
        refused=(of.pool, *sorted(set(own))),
    )
