"""What a host offers to slots, and what stands in their way: facts for `wrenn doctor`."""

import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from wrennd.linux import links, nftables, process, routes
from wrennd.linux.rtnetlink import Rtnetlink
from wrennd.network import forwarding
from wrennd.network.addressing import LINK_GROUP
from wrennd.network.firewall import SlotRules, host_rules
from wrennd.network.perimeter import Ways
from wrennd.network.slot import MIN_ROUTE_BITS

# Chains by which programs that drop forwarded packets are known.
_OWNERS = {"DOCKER-USER": "Docker", "ufw-before-forward": "ufw", "filter_FORWARD": "firewalld"}


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The facts. An empty `..._problem` means usable.

    is_router: net.ipv4.ip_forward is 1; when it is not, forwarding is turned on for `uplinks` only
    while there are sandboxes. uplinks: links to the internet and the resolvers (none: no internet).
    forward_drops: firewalls that drop forwarded packets by default, in words. overlaps: routes
    within the reach of the pool, in words.
    """

    is_router: bool
    uplinks: tuple[str, ...]
    mtu: int
    forward_drops: tuple[str, ...]
    overlaps: tuple[str, ...]
    nft_problem: str
    tun_problem: str
    netns_problem: str


def survey(pool: IPv4Network, resolvers: tuple[IPv4Address, ...]) -> Survey:
    """Look at this host without changing it."""
    nft_problem = _nft_problem()
    with Rtnetlink() as rt:
        ways = Ways.find(rt, resolvers)
        overlaps = _overlaps(rt, pool)
    return Survey(
        is_router=forwarding.is_router(),
        uplinks=ways.uplinks,
        mtu=ways.mtu,
        forward_drops=() if nft_problem else (*_nft_drops(nftables.chains()), *_legacy_drops()),
        overlaps=overlaps,
        nft_problem=nft_problem,
        tun_problem=_tun_problem(),
        netns_problem=_netns_problem(),
    )


def _nft_problem() -> str:
    """Let the kernel judge both rule texts, which needs all that they are made of."""
    inside = SlotRules(
        host_address=IPv4Address("198.19.0.0"),
        address=IPv4Address("198.19.0.1"),
        resolvers=(IPv4Address("198.19.0.2"),),
        refused=(),
    )
    try:
        nftables.check(inside.render())
        nftables.check(host_rules("doctor"))
    except FileNotFoundError:
        return "the program nft is not installed"
    except OSError as error:
        return str(error)
    return ""


def _tun_problem() -> str:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/net/tun can't be opened: {error.strerror}"
    return ""


def _netns_problem() -> str:
    try:
        process.run(["unshare", "--net", "true"], timeout_s=10)
    except OSError as error:
        return f"no network namespace can be made: {error}"
    return ""


def _nft_drops(chains: list[nftables.Chain]) -> list[str]:
    """Base chains at `forward` with policy drop, and firewalld, which drops by its last rule."""
    names = {chain.name for chain in chains}
    owner = next((program for chain, program in _OWNERS.items() if chain in names), "")
    said = f" ({owner})" if owner else ""
    drops = [
        f"table {chain.family} {chain.table}, chain {chain.name}: policy drop{said}"
        for chain in chains
        if chain.hook == "forward" and chain.policy == "drop" and chain.family != "ip6"
    ]
    if owner == "firewalld" and not drops:
        drops.append("firewalld rejects what no zone of its own forwards")
    return drops


def _legacy_drops() -> list[str]:
    """The older iptables, whose tables nft does not see."""
    try:
        if "filter" not in Path("/proc/net/ip_tables_names").read_text().split():
            return []
        done = process.run(["iptables-legacy", "-S", "FORWARD"], timeout_s=10)
    except OSError:  # neither table nor tool: nobody uses it
        return []
    return [
        f"iptables-legacy, chain FORWARD: policy {line.split()[-1].lower()}"
        for line in done.stdout.splitlines()
        if line.startswith("-P FORWARD") and line.split()[-1] in ("DROP", "REJECT")
    ]


def _overlaps(rt: Rtnetlink, pool: IPv4Network) -> tuple[str, ...]:
    """Routes that cost slots: those that overlap the pool and are not ours."""
    named = {link.index: link for link in links.links(rt)}
    found = set()
    for route in routes.routes(rt):
        link = named.get(route.link)
        is_ours = link is not None and link.group == LINK_GROUP
        is_wide = route.destination.prefixlen < MIN_ROUTE_BITS
        if not is_ours and not is_wide and route.destination.overlaps(pool):
            found.add(f"{route.destination} by {link.name if link else 'no single link'}")
    return tuple(sorted(found))
