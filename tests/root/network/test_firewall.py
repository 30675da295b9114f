"""What a guest reaches and what not, tried from a guest, with real servers at the other end."""

import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import pytest

from root.network import topology
from root.network.topology import (
    HOST_ADDRESS,
    HOST_LAN,
    HOST_PUBLIC,
    INTERNET,
    LAN,
    METADATA,
    OTHER_RESOLVER,
    PRIVATE,
    RESOLVER,
    Guest,
    Worker,
    World,
)
from wrennd.core.ids import new_installation_id
from wrennd.network.addressing import GATEWAY_MAC, GUEST_MAC

pytestmark = pytest.mark.root

PROHIBITED = "refused: EHOSTUNREACH"  # ICMP "administratively prohibited", as Linux reports it
SILENCE = "silence"
KERNEL = ("link", "namespace", "table", "mount", "file")


@dataclass(frozen=True, kw_only=True)
class Guests:
    """Two guests of one installation and one of another."""

    mine: Guest
    neighbour: Guest
    stranger: Guest
    worker: Worker


@pytest.fixture(scope="module")
def guests(shared_world: World) -> Iterator[Guests]:
    worker, other = (shared_world.worker(new_installation_id()) for _ in range(2))
    made = Guests(
        mine=shared_world.guest(worker, "mine"),
        neighbour=shared_world.guest(worker, "neighbour"),
        stranger=shared_world.guest(other, "stranger"),
        worker=worker,
    )
    for guest in (made.mine, made.neighbour, made.stranger):
        shared_world.serve(guest.name, ("127.0.0.1", "169.254.0.21"), (*topology.PORTS, 49983))
    yield made
    for name in ("mine", "neighbour", "stranger"):
        shared_world.servers.pop(name)
    for guest, by in ((made.stranger, other), (made.neighbour, worker), (made.mine, worker)):
        by("close", sandbox=guest.sandbox)
    for by in (worker, other):
        left = by("snapshot")
        assert not [name for kind in KERNEL for name in left[kind]]


def test_internet_is_reached_as_the_host(shared_world: World, guests: Guests) -> None:
    outcomes = shared_world.probe(
        "mine", ("tcp", INTERNET, 80), ("udp", INTERNET, 80), ("icmp", INTERNET, 0)
    )
    assert outcomes == [HOST_ADDRESS, HOST_ADDRESS, "pong"]


def test_dns_at_a_private_upstream(shared_world: World, guests: Guests) -> None:
    outcomes = shared_world.probe("mine", ("udp", RESOLVER, 53), ("tcp", RESOLVER, 53))
    assert outcomes == [HOST_ADDRESS, HOST_ADDRESS]


def test_a_resolver_is_open_on_its_port_only(shared_world: World, guests: Guests) -> None:
    outcomes = shared_world.probe(
        "mine",
        ("tcp", RESOLVER, 80),
        ("udp", RESOLVER, 80),
        ("icmp", RESOLVER, 0),
        ("udp", OTHER_RESOLVER, 53),
    )
    assert outcomes == [PROHIBITED] * 4


def test_host_reaches_the_guest(shared_world: World, guests: Guests) -> None:
    """On any port; the guest sees its gateway as the peer, wherever it is restored."""
    address = guests.mine.slot["address"]
    outcomes = shared_world.probe(
        "host", ("tcp", address, 49983), ("udp", address, 80), ("icmp", address, 0)
    )
    assert outcomes == ["169.254.0.22", "169.254.0.22", "pong"]


def test_nobody_else_reaches_the_guest(shared_world: World, guests: Guests) -> None:
    address = guests.mine.slot["address"]
    for name in ("internet", "lan"):
        shared_world.ip(name, "route", "replace", "198.19.0.0/19", "via", _host_seen_from(name))
    shared_world.visitors("mine")
    for name in ("internet", "lan"):
        tried = shared_world.probe(name, ("tcp", address, 49983), ("udp", address, 80), seconds=0.4)
        assert tried == [SILENCE, SILENCE]
        shared_world.ip(name, "route", "del", "198.19.0.0/19")
    assert shared_world.visitors("mine") == []


def _host_seen_from(name: str) -> str:
    return {"internet": HOST_ADDRESS, "lan": HOST_LAN}[name]


@pytest.mark.parametrize("address", [*PRIVATE, LAN])
def test_private_ranges_are_refused(shared_world: World, guests: Guests, address: str) -> None:
    """There is somebody at each: the host reaches them."""
    far = "lan" if address == LAN else "internet"
    assert all(o[0].isdigit() for o in shared_world.probe("host", ("tcp", address, 80)))
    shared_world.visitors(far)
    outcomes = shared_world.probe(
        "mine", ("tcp", address, 80), ("udp", address, 53), ("icmp", address, 0)
    )
    assert outcomes == [PROHIBITED] * 3
    assert shared_world.visitors(far) == []


def test_host_is_refused(shared_world: World, guests: Guests) -> None:
    """At each of its addresses, the public ones and both ends of the slot's link too."""
    mine = IPv4Address(guests.mine.slot["address"])
    targets = (HOST_ADDRESS, HOST_PUBLIC, HOST_LAN, str(mine - 1), str(mine))
    for address in (HOST_ADDRESS, HOST_PUBLIC, HOST_LAN):
        assert shared_world.probe("host", ("tcp", address, 80)) == [address]
    shared_world.visitors("host")
    probes = [(p, a, 80) for a in targets for p in ("tcp", "udp", "icmp")]
    outcomes = shared_world.probe("mine", *probes, seconds=0.5)
    assert set(outcomes) <= {PROHIBITED, SILENCE}
    assert shared_world.visitors("host") == []


def test_host_is_refused_also_by_its_own_table(shared_world: World, guests: Guests) -> None:
    """An address that the host got after the slot was opened is known to no slot."""
    late = "203.0.113.78"
    shared_world.ip("host", "addr", "add", f"{late}/32", "dev", "lo")
    try:
        assert shared_world.probe("internet", ("icmp", HOST_ADDRESS, 0)) == ["pong"]
        assert shared_world.probe("mine", ("icmp", late, 0), seconds=0.5) == [SILENCE]
    finally:
        shared_world.ip("host", "addr", "del", f"{late}/32", "dev", "lo")


def test_host_is_refused_after_its_tables_were_flushed(shared_world: World, guests: Guests) -> None:
    """As reloading nftables.service does; the next slot loads them again."""
    saved = shared_world.run("host", "nft", "list", "ruleset")
    shared_world.run("host", "nft", "flush", "ruleset")
    try:
        outcomes = shared_world.probe(
            "mine", ("tcp", HOST_PUBLIC, 80), ("tcp", guests.neighbour.slot["address"], 80)
        )
        assert outcomes == [PROHIBITED] * 2
        shared_world.guest(guests.worker, "late")
        guests.worker("close", sandbox=max(guests.worker("find"), key=_is_new(guests)))
        assert shared_world.probe("mine", ("tcp", INTERNET, 80)) == [HOST_ADDRESS]
    finally:
        shared_world.run("host", "nft", "flush", "ruleset")
        shared_world.run("host", "nft", "-f", "-", stdin=saved)


def _is_new(guests: Guests):
    known = {guests.mine.sandbox, guests.neighbour.sandbox, guests.stranger.sandbox}
    return lambda sandbox: sandbox not in known


@pytest.mark.parametrize("other", ["neighbour", "stranger"])
def test_other_sandboxes_are_refused(shared_world: World, guests: Guests, other: str) -> None:
    address = getattr(guests, other).slot["address"]
    assert shared_world.probe("host", ("tcp", address, 49983)) == ["169.254.0.22"]
    shared_world.visitors(other)
    outcomes = shared_world.probe(
        "mine", ("tcp", address, 49983), ("udp", address, 80), ("icmp", address, 0)
    )
    assert outcomes == [PROHIBITED] * 3
    assert shared_world.visitors(other) == []


def test_gateway_answers_pings_and_nothing_else(shared_world: World, guests: Guests) -> None:
    gateway = "169.254.0.22"
    outcomes = shared_world.probe(
        "mine", ("icmp", gateway, 0), ("tcp", gateway, 80), ("udp", gateway, 53), seconds=0.4
    )
    assert outcomes == ["pong", SILENCE, SILENCE]


def test_forged_packets_never_leave_the_slot(shared_world: World, guests: Guests) -> None:
    """IPv6, foreign sources, and destinations that a guest's own kernel would refuse."""
    link = _host_link(shared_world, guests.mine)
    watch = shared_world.spawn("host", "frames.py", "watch", link)
    forged = [
        ipv4_frame("203.0.113.200", INTERNET),
        ipv4_frame("198.51.100.2", INTERNET),
        ipv4_frame(guests.mine.slot["address"], INTERNET),
        ipv4_frame(guests.neighbour.slot["address"], INTERNET),
        ipv4_frame("127.0.0.1", INTERNET),
        ipv4_frame("169.254.0.21", "127.0.0.1"),
        ipv4_frame("169.254.0.21", METADATA),
        ipv4_frame("169.254.0.21", "0.1.2.3"),
        ipv4_frame("169.254.0.21", "224.0.0.251"),
        ipv4_frame("169.254.0.21", "255.255.255.255"),
        ipv6_frame("2001:db8::1"),
        ipv6_frame("ff02::1"),
        ipv6_frame("fe80::1"),
        ipv4_frame("169.254.0.21", INTERNET),  # the last one is honest, and marks the end
    ]
    shared_world.python(
        "mine", "frames.py", "send", "eth0", stdin="\n".join(f.hex() for f in forged)
    )
    seen = watch.read_until(f"{guests.mine.slot['address']} {INTERNET}")
    assert seen[1:] == [f"{guests.mine.slot['address']} {INTERNET}"]


def _host_link(made: World, guest: Guest) -> str:
    for link in json.loads(made.ip("host", "-j", "link", "show")):
        if link.get("ifalias", "").endswith(f":{guest.sandbox}"):
            return str(link["ifname"])
    raise AssertionError(f"no link of {guest.sandbox}")


def test_ipv6_is_dropped_whole(shared_world: World, guests: Guests) -> None:
    shared_world.ip("mine", "-6", "route", "replace", "default", "dev", "eth0")
    outcomes = shared_world.probe(
        "mine", ("tcp", "2001:db8::1", 80), ("udp", "2001:db8::1", 53), seconds=0.4
    )
    assert not any(outcome[0].isdigit() for outcome in outcomes)
    inside = shared_world.run(
        "host", "nsenter", f"--net={guests.mine.slot['netns']}", "ip", "-6", "a"
    )
    assert inside == ""


def test_a_process_in_the_slot_reaches_nothing(shared_world: World, guests: Guests) -> None:
    """What a guest could do that took over its VMM: open sockets in the slot's namespace."""
    address = guests.mine.slot["address"]
    script = str(topology.HERE / "probe.py")
    asked = [
        {"protocol": protocol, "address": target, "port": 80}
        for target in (INTERNET, HOST_PUBLIC, str(IPv4Address(address) - 1), "169.254.0.21")
        for protocol in ("tcp", "udp")
    ]
    for name in ("internet", "host", "mine"):
        shared_world.visitors(name)
    said = shared_world.run(
        "host",
        *("nsenter", f"--net={guests.mine.slot['netns']}", "--", "setpriv"),
        *(f"--reuid={guests.mine.slot['uid']}", "--clear-groups", "--"),
        *("python3", "-I", script, "0.5"),
        stdin=json.dumps(asked),
    )
    assert not any(outcome[0].isdigit() for outcome in json.loads(said)), said
    for name in ("internet", "host", "mine"):
        assert shared_world.visitors(name) == []


def test_connections_are_limited(shared_world: World, guests: Guests) -> None:
    """More packets of new connections at once than the burst: some must not get through."""
    script = (
        "import socket\n"
        "for port in range(1, 4000):\n"
        "    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"    s.sendto(b'?', ('{INTERNET}', 20000 + port)); s.close()\n"
    )
    shared_world.run("stranger", "python3", "-I", "-c", script)
    inside = ["nsenter", f"--net={guests.stranger.slot['netns']}", "--"]
    known = int(
        shared_world.run("host", *inside, "sysctl", "-n", "net.netfilter.nf_conntrack_count")
    )
    assert 500 < known < 3500


def test_segments_fit_the_uplink(shared_world: World, guests: Guests) -> None:
    """The guest believes in 1500 bytes; what is beyond allows less, and TCP is told so."""
    script = (
        "import socket\n"
        f"s = socket.create_connection(('{INTERNET}', 80), timeout=5)\n"
        "print(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))\n"
    )
    segment = int(shared_world.run("mine", "python3", "-I", "-c", script))
    assert 1200 < segment <= topology.UPLINK_MTU - 40


def ipv4_frame(source: str, destination: str) -> bytes:
    """A UDP datagram to port 80, without checksum in UDP, with one in IP."""
    payload = struct.pack("!HHHH", 4000, 80, 9, 0) + b"?"
    head = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(payload), 1, 0, 64, socket.IPPROTO_UDP, 0),
        *(IPv4Address(source).packed, IPv4Address(destination).packed),
    )
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:]
    return _ethernet(0x0800) + head + payload


def ipv6_frame(destination: str) -> bytes:
    payload = struct.pack("!HHHH", 4000, 80, 9, 0xFFFF) + b"?"
    head = struct.pack("!IHBB", 6 << 28, len(payload), socket.IPPROTO_UDP, 64)
    source = IPv6Address("2001:db8::21").packed
    return _ethernet(0x86DD) + head + source + IPv6Address(destination).packed + payload


def _ethernet(kind: int) -> bytes:
    to, come_from = (bytes.fromhex(mac.replace(":", "")) for mac in (GATEWAY_MAC, GUEST_MAC))
    return to + come_from + struct.pack("!H", kind)
