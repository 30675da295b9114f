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
from wrennd.core.ids import new_installation_id, new_sandbox_id
from wrennd.network.addressing import GATEWAY_MAC, GUEST_MAC
from wrennd.network.firewall import CONNECTIONS_BURST, CONNECTIONS_PER_SECOND, MAX_CONNECTIONS

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
    """Not even a packet of theirs reaches the slot."""
    address = guests.mine.slot["address"]
    watch = shared_world.spawn("host", "frames.py", "watch", _host_link(shared_world, guests.mine))
    for name in ("internet", "lan"):
        shared_world.ip(name, "route", "replace", "198.19.0.0/19", "via", _host_seen_from(name))
        tried = shared_world.probe(name, ("tcp", address, 49983), ("udp", address, 80), seconds=0.4)
        assert tried == [SILENCE, SILENCE]
        shared_world.ip(name, "route", "del", "198.19.0.0/19")
    assert shared_world.probe("host", ("icmp", address, 0)) == ["pong"]
    before = str(IPv4Address(address) - 1)
    assert set(watch.read_until(f"{address} {before}")[1:]) == {
        f"{before} {address}",
        f"{address} {before}",
    }


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
    watch = shared_world.spawn("host", "frames.py", "watch", _host_link(shared_world, guests.mine))
    somebody = "203.0.113.66"
    forged = [
        ipv4_frame("203.0.113.200", somebody),
        ipv4_frame("198.51.100.2", somebody),
        ipv4_frame(guests.mine.slot["address"], somebody),
        ipv4_frame(guests.neighbour.slot["address"], somebody),
        ipv4_frame("127.0.0.1", somebody),
        ipv4_frame("169.254.0.21", "127.0.0.1"),
        ipv4_frame("169.254.0.21", METADATA),
        ipv4_frame("169.254.0.21", "0.1.2.3"),
        ipv4_frame("169.254.0.21", "224.0.0.251"),
        ipv4_frame("169.254.0.21", "255.255.255.255"),
        ipv4_frame("169.254.0.21", somebody, flags=0),  # TCP that belongs to no connection
        ipv6_frame("2001:db8::1"),
        ipv6_frame("ff02::1"),
        ipv6_frame("fe80::1"),
        ipv4_frame("169.254.0.21", INTERNET),  # the last one is honest, and marks the end
    ]
    lines = "\n".join(frame.hex() for frame in forged)
    shared_world.python("mine", "frames.py", "send", "eth0", stdin=lines)
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


def test_refusals_do_not_wear_out(shared_world: World, guests: Guests) -> None:
    """Beyond the number of answers that a slot gives, there is silence, and still no way."""
    shared_world.visitors("internet")
    script = (
        "import socket\n"
        "for port in range(20000, 20200):\n"
        "    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "    s.bind(('', port))\n"
        "    s.sendto(b'?', ('10.1.2.3', 80))\n"
        "    s.close()\n"
    )
    shared_world.run("mine", "python3", "-I", "-c", script)
    assert shared_world.probe("mine", ("udp", INTERNET, 80)) == [HOST_ADDRESS]
    assert [v["address"] for v in shared_world.visitors("internet")] == [INTERNET]


@pytest.fixture
def vacant(guests: Guests) -> Iterator[Guest]:
    """A slot without a guest."""
    sandbox = new_sandbox_id()
    yield Guest(name="", sandbox=sandbox, slot=guests.worker("open", sandbox=sandbox, dns=[]))
    guests.worker("close", sandbox=sandbox)


def test_the_host_trusts_nothing_out_of_a_slot(
    shared_world: World, guests: Guests, vacant: Guest
) -> None:
    """The host's table alone, with the slot's rules gone and forged packets on its link."""
    slot = vacant.slot
    inside = ["nsenter", f"--net={slot['netns']}", "--"]
    shared_world.run("host", *inside, "nft", "flush", "ruleset")
    shared_world.run("host", *inside, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0")
    own, neighbour = slot["address"], guests.neighbour.slot["address"]
    asked = [("tcp", HOST_PUBLIC, 80), ("tcp", neighbour, 49983), ("icmp", neighbour, 0)]
    watches = {
        name: shared_world.spawn(name, "frames.py", "watch", link)
        for name, link in (("internet", "eth0"), ("host", _host_link(shared_world, guests.mine)))
    }
    for name in ("internet", "host", "neighbour"):
        shared_world.visitors(name)
    link = _host_link(shared_world, vacant)
    _carry_ipv6(shared_world, link)
    frames = [
        ipv4_frame("203.0.113.200", "203.0.113.66"),
        ipv4_frame(own, guests.mine.slot["address"]),
        ipv4_frame(own, HOST_PUBLIC),
        ipv6_frame("2001:db8::1"),
    ]
    lines = "\n".join(_to(shared_world, link, frame).hex() for frame in frames)
    script = str(topology.HERE / "frames.py")
    shared_world.run("host", *inside, "python3", "-I", script, "send", "uplink", stdin=lines)
    said = shared_world.run(
        "host",
        *(*inside, "python3", "-I", str(topology.HERE / "probe.py"), "0.5"),
        stdin=json.dumps([{"protocol": p, "address": a, "port": n} for p, a, n in asked]),
    )
    assert json.loads(said) == [SILENCE] * 3
    assert shared_world.probe("host", ("icmp", INTERNET, 0)) == ["pong"]
    assert shared_world.probe("host", ("icmp", guests.mine.slot["address"], 0)) == ["pong"]
    seen = watches["internet"].read_until(f"{INTERNET} {HOST_ADDRESS}")
    assert not [line for line in seen if "203.0.113.66" in line or "2001:db8:" in line]
    mine = guests.mine.slot["address"]
    seen = watches["host"].read_until(f"{mine} {IPv4Address(mine) - 1}")
    assert not [line for line in seen if own in line.split()]
    for name in ("internet", "host", "neighbour"):
        assert shared_world.visitors(name) == []


def _carry_ipv6(made: World, link: str) -> None:
    """Make the host a router for IPv6 as well, with ways there and back."""
    (far,) = json.loads(made.ip("internet", "-j", "link", "show", "eth0"))
    made.run("host", "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    made.run("host", "sysctl", "-qw", f"net.ipv6.conf.{link}.disable_ipv6=0")
    made.ip("host", "-6", "route", "replace", "2001:db8::/32", "dev", "wan0")
    made.ip("host", "-6", "route", "replace", "2001:db8::21", "dev", link)
    words = ("replace", "2001:db8::1", "lladdr", far["address"], "dev", "wan0")
    made.ip("host", "-6", "neigh", *words)


def _to(made: World, link: str, frame: bytes) -> bytes:
    """The frame, addressed to the host's end of a slot."""
    (found,) = json.loads(made.ip("host", "-j", "link", "show", link))
    return bytes.fromhex(found["address"].replace(":", "")) + frame[6:]


# New connections as fast as they arrive, but not faster than the cable carries them: an answer
# is awaited after each 20. Prints the seconds that it took.
FLOOD = """
import socket, sys, time
count, address = int(sys.argv[1]), sys.argv[2]
pace = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
pace.connect((address, 80))
pace.settimeout(0.3)
start = time.monotonic()
for port in range(20000, 20000 + count):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"?", (address, port))
    if port % 20 == 0:
        try:
            pace.send(b"?")
            pace.recv(100)
        except (TimeoutError, ConnectionRefusedError):
            pass
print(time.monotonic() - start)
"""


def _flood(made: World, name: str, count: int) -> float:
    return float(made.run(name, "python3", "-I", "-c", FLOOD, str(count), INTERNET))


def _connections(made: World, guest: Guest) -> int:
    inside = ["nsenter", f"--net={guest.slot['netns']}", "--"]
    return int(made.run("host", *inside, "sysctl", "-n", "net.netfilter.nf_conntrack_count"))


def test_new_connections_have_a_rate(shared_world: World, guests: Guests) -> None:
    before = _connections(shared_world, guests.stranger)
    took_s = _flood(shared_world, "stranger", 3500)
    made = _connections(shared_world, guests.stranger) - before
    assert made > CONNECTIONS_BURST * 0.8
    assert made < CONNECTIONS_BURST + CONNECTIONS_PER_SECOND * (took_s + 0.2)


def test_connections_have_a_limit(shared_world: World, guests: Guests) -> None:
    """The rule as it is loaded, with a number that a test can reach."""
    inside = ["nsenter", f"--net={guests.neighbour.slot['netns']}", "--"]
    rules = shared_world.run("host", *inside, "nft", "list", "ruleset")
    limit = f"ct count over {MAX_CONNECTIONS}"
    assert rules.count(limit) == 1
    few = "flush ruleset\n" + rules.replace(limit, "ct count over 40")
    shared_world.run("host", *inside, "nft", "-f", "-", stdin=few)
    try:
        before = _connections(shared_world, guests.neighbour)
        _flood(shared_world, "neighbour", 100)
        assert _connections(shared_world, guests.neighbour) - before <= 40
        answers = shared_world.probe("host", ("tcp", guests.neighbour.slot["address"], 49983))
        assert answers == ["169.254.0.22"], "the host's own connections are not counted"
    finally:
        shared_world.run("host", *inside, "nft", "-f", "-", stdin="flush ruleset\n" + rules)


def test_a_dead_guest_is_told_to_the_host(shared_world: World, vacant: Guest) -> None:
    """Not silence: the slot itself answers when nobody does (after ARP's three seconds)."""
    outcomes = shared_world.probe("host", ("tcp", vacant.slot["address"], 49983), seconds=60)
    assert outcomes == [PROHIBITED]


def test_segments_fit_the_uplink(shared_world: World, guests: Guests) -> None:
    """The guest believes in 1500 bytes; what is beyond allows less, and TCP is told so."""
    script = (
        "import socket\n"
        f"s = socket.create_connection(('{INTERNET}', 80), timeout=60)\n"
        "print(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))\n"
    )
    segment = int(shared_world.run("mine", "python3", "-I", "-c", script))
    assert 1200 < segment <= topology.UPLINK_MTU - 40, "the server itself offers 1460"


def ipv4_frame(source: str, destination: str, *, flags: int | None = None) -> bytes:
    """A UDP datagram to port 80; with `flags` a TCP segment instead."""
    if flags is None:
        protocol, payload = socket.IPPROTO_UDP, struct.pack("!HHHH", 4000, 80, 9, 0) + b"?"
    else:
        protocol = socket.IPPROTO_TCP
        payload = struct.pack("!HHIIBBHHH", 4000, 80, 1, 1, 5 << 4, flags, 1000, 0, 0)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0),
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
