"""What follows from a slot number: addresses, names, MAC addresses, uid. Pure.

Also the guest's constant identity, which is the same in every slot so that a snapshot fits any.
"""

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from wrennd.core.errors import InvalidInput
from wrennd.core.ids import INSTALLATION_ID, check_sandbox_id

GUEST_ADDRESS = IPv4Address("169.254.0.21")
GATEWAY_ADDRESS = IPv4Address("169.254.0.22")
GUEST_PREFIX = 30
# Locally administered. The gateway's is pinned too: a restored guest has it in its ARP cache.
GUEST_MAC = "02:57:52:4e:00:15"
GATEWAY_MAC = "02:57:52:4e:00:16"
TAP = "tap0"
UPLINK = "uplink"

FIRST_UID = 1_879_100_000
MAX_SLOTS = 1 << 16  # what fits the MAC addresses and the link names (15 bytes)
# RFC 2544 sets 198.18.0.0/15 aside for benchmarks: on no public network, and hardly on a private
# one. Its first half is what proxies with made-up addresses like to take.
DEFAULT_POOL = IPv4Network("198.19.0.0/19")
# Device group of every slot's link on the host, of all installations ("WR").
LINK_GROUP = 0x5752


def parse_pool(text: str) -> IPv4Network:
    """The range that slots take addresses from, two each; "" is the default.

    Errors: InvalidInput.
    """
    if not text:
        return DEFAULT_POOL
    try:
        pool = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise InvalidInput(
            f"the network pool {text!r} is not an IPv4 network: {error}",
            hint=f"write it like {DEFAULT_POOL}",
        ) from None
    if not 8 <= pool.prefixlen <= 30:
        raise InvalidInput(
            f"the network pool {text} has a prefix of {pool.prefixlen} bits",
            hint="8 to 30 are possible; 19 bits hold 4096 sandboxes",
        )
    if (
        pool.is_loopback
        or pool.is_multicast
        or pool.is_link_local
        or pool.network_address.packed[0] in (0, 255)
    ):
        raise InvalidInput(
            f"sandboxes can't have addresses in {text}",
            hint="choose a range of unicast addresses that this host does not use",
        )
    return pool


def slots_in(pool: IPv4Network) -> int:
    return min(pool.num_addresses // 2, MAX_SLOTS)


def link_prefix(installation: str) -> str:
    """How the links of an installation begin: rules match them by it."""
    return f"w{installation}v"


def netns_name(installation: str, sandbox_id: str) -> str:
    return f"{netns_prefix(installation)}{sandbox_id}"


def netns_prefix(installation: str) -> str:
    return f"wrenn-{installation}-"


def link_alias(installation: str, sandbox_id: str) -> str:
    return f"wrenn:{installation}:{sandbox_id}"


def table_name(installation: str) -> str:
    """The installation's table on the host (family inet)."""
    return f"wrenn-{installation}"


@dataclass(frozen=True, kw_only=True)
class Addressing:
    """Slot `index` of a pool, held by a sandbox of an installation."""

    installation: str
    sandbox_id: str
    index: int
    pool: IPv4Network = DEFAULT_POOL

    def __post_init__(self) -> None:
        if not INSTALLATION_ID.fullmatch(self.installation):
            raise InvalidInput(f"{self.installation!r} is not an installation id")
        check_sandbox_id(self.sandbox_id)
        if not 0 <= self.index < slots_in(self.pool):
            raise InvalidInput(f"the pool {self.pool} has no slot {self.index}")

    @property
    def host_address(self) -> IPv4Address:
        """The host's end of the veth pair."""
        return slot_addresses(self.pool, self.index)[0]

    @property
    def address(self) -> IPv4Address:
        """The namespace's end: where the host reaches the guest. Unique on the host."""
        return slot_addresses(self.pool, self.index)[1]

    @property
    def link(self) -> str:
        return f"{link_prefix(self.installation)}{self.index:x}"

    @property
    def alias(self) -> str:
        return link_alias(self.installation, self.sandbox_id)

    @property
    def netns(self) -> str:
        return netns_name(self.installation, self.sandbox_id)

    @property
    def uid(self) -> int:
        return FIRST_UID + self.index

    @property
    def host_mac(self) -> str:
        return f"02:57:52:48:{self.index >> 8:02x}:{self.index & 0xFF:02x}"

    @property
    def uplink_mac(self) -> str:
        return f"02:57:52:55:{self.index >> 8:02x}:{self.index & 0xFF:02x}"


def slot_addresses(pool: IPv4Network, index: int) -> tuple[IPv4Address, IPv4Address]:
    """(host's end, namespace's end) of slot `index`: a /31."""
    first = pool.network_address + 2 * index
    return first, first + 1


def slot_of_link(installation: str, name: str) -> int | None:
    """The slot number in a link's name; None when it is no link of this installation."""
    prefix = link_prefix(installation)
    digits = name.removeprefix(prefix)
    if digits == name or not digits or not set(digits) <= set("0123456789abcdef"):
        return None
    return int(digits, 16)


def sandbox_of_alias(installation: str, alias: str) -> str | None:
    prefix = link_alias(installation, "")
    return alias.removeprefix(prefix) if alias.startswith(prefix) else None


def sandbox_of_netns(installation: str, name: str) -> str | None:
    prefix = netns_prefix(installation)
    return name.removeprefix(prefix) if name.startswith(prefix) else None
