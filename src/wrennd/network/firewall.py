"""The rules, as text for nft: those inside a slot's namespace and those on the host. Pure.

Both say the same thing from two sides (docs/network.md): the namespace knows the guest, the host
trusts nothing that comes out of a slot.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from wrennd.network.addressing import (
    GATEWAY_ADDRESS,
    GUEST_ADDRESS,
    LINK_GROUP,
    TAP,
    UPLINK,
    link_prefix,
    table_name,
)

# Never reached by a guest, whatever else is allowed: "this network", private, carrier-grade NAT,
# loopback, link-local (metadata services), benchmarks, multicast, reserved and broadcast.
REFUSED = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)

# A guest's connections also take entries in the host's table, which has 262144 by default on 4
# GiB and more: 64 guests at their limit fill it.
MAX_CONNECTIONS = 4096
CONNECTIONS_PER_SECOND = 500
CONNECTIONS_BURST = 1000
# Answers to refused packets. The kernel has one budget of such answers for the whole machine
# (net.ipv4.icmp_msgs_per_sec, 1000), which one guest must not use up.
REFUSALS_PER_SECOND = 20
REFUSALS_BURST = 40

FORWARDING_TABLE = "wrenn-forwarding"
FORWARDING_SET = "uplinks"


# The part that is the same in every slot.
_FILTERS = f"""
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
        ct state established,related accept
        iifname "{UPLINK}" oifname "{TAP}" ct status dnat accept
        iifname "{TAP}" oifname "{UPLINK}" jump outgoing
    }}
    chain outgoing {{
        ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport 53 goto limited
        ip daddr @refused limit rate {REFUSALS_PER_SECOND}/second burst {REFUSALS_BURST} packets \
reject with icmp type admin-prohibited
        ip daddr @refused drop
        goto limited
    }}
    chain limited {{
        limit rate over {CONNECTIONS_PER_SECOND}/second burst {CONNECTIONS_BURST} packets drop
        ct count over {MAX_CONNECTIONS} drop
        accept
    }}

    chain input {{
        type filter hook input priority filter; policy drop;
        iifname "{TAP}" ip daddr {GATEWAY_ADDRESS} icmp type echo-request \
limit rate 50/second accept
    }}
    # What the kernel itself says (refusals, path MTU, that no guest answers), and nothing that a
    # process here says: without capabilities it can't send these. No output link is asked for,
    # since what is said about translated packets is routed anew after this.
    chain output {{
        type filter hook output priority filter; policy drop;
        icmp type {{ destination-unreachable, time-exceeded }} accept
        oifname "{TAP}" icmp type echo-reply accept
    }}
"""


@dataclass(frozen=True, kw_only=True)
class SlotRules:
    """What the rules in a slot's namespace depend on.

    host_address, address: both ends of its veth pair. refused: networks besides REFUSED (the pool,
    the host's own addresses).
    """

    host_address: IPv4Address
    address: IPv4Address
    resolvers: tuple[IPv4Address, ...]
    refused: tuple[IPv4Network, ...]

    def render(self) -> str:
        return f"table inet wrenn {{\n{self._sets()}{self._translation()}{_FILTERS}}}\n"

    def _sets(self) -> str:
        refused = _elements([*REFUSED, *self.refused])
        resolvers = f"elements = {_elements(self.resolvers)}" if self.resolvers else ""
        return f"""\
    set refused {{
        type ipv4_addr; flags interval; auto-merge
        elements = {refused}
    }}
    set resolvers {{
        type ipv4_addr
        {resolvers}
    }}
"""

    def _translation(self) -> str:
        return f"""
    # Before connection tracking: what is spoofed must not even take an entry.
    chain early {{
        type filter hook prerouting priority raw; policy accept;
        meta nfproto ipv6 drop
        iifname "{TAP}" ip saddr != {GUEST_ADDRESS} drop
        iifname "{UPLINK}" ip daddr != {self.address} drop
    }}

    # Only the host itself reaches the guest, as its gateway; the rest are answers.
    chain to_guest {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname "{UPLINK}" ip saddr {self.host_address} dnat ip to {GUEST_ADDRESS}
    }}
    chain sources {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{UPLINK}" snat ip to {self.address}
        oifname "{TAP}" snat ip to {GATEWAY_ADDRESS}
    }}
"""


def host_rules(installation: str) -> str:
    """The installation's table on the host, replacing what was there: the same for all slots."""
    table = f"inet {table_name(installation)}"
    ours = f'"{link_prefix(installation)}*"'
    return f"""\
add table {table}
delete table {table}
table {table} {{
    chain input {{
        type filter hook input priority filter - 10; policy accept;
        iifname {ours} jump from_slot
    }}
    chain from_slot {{
        ct state established,related accept
        drop
    }}

    chain forward {{
        type filter hook forward priority filter - 10; policy accept;
        iifname {ours} jump out_of_slot
        oifname {ours} ct state established,related accept
        oifname {ours} drop
    }}
    chain out_of_slot {{
        meta nfproto ipv6 drop
        fib saddr . iif oif missing drop
    }}

    chain sources {{
        type nat hook postrouting priority srcnat; policy accept;
        meta nfproto ipv4 iifname {ours} masquerade
    }}
}}
"""


def forwarding_rules(uplinks: Iterable[str]) -> str:
    """Keep uplinks whose forwarding we turned on from forwarding for anyone but slots.

    Adds to what is there, so that the set always names every link that we turned on. Connections
    that another's NAT let in (ct status dnat) and answers pass: they were somebody's decision.
    """
    table = f"inet {FORWARDING_TABLE}"
    names = ", ".join(f'"{name}"' for name in sorted(uplinks))
    return f"""\
add table {table}
add set {table} {FORWARDING_SET} {{ type ifname; }}
add element {table} {FORWARDING_SET} {{ {names} }}
add chain {table} forward {{ type filter hook forward priority filter - 10; policy accept; }}
flush chain {table} forward
add rule {table} forward iifname @{FORWARDING_SET} oifgroup != {LINK_GROUP} \
ct state != {{ established, related }} ct status ! dnat drop
"""


def _elements(values: Iterable[IPv4Network | IPv4Address]) -> str:
    return "{ " + ", ".join(str(value) for value in values) + " }"
