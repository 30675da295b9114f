"""Which resolvers guests use: those given, else the host's real upstreams, else public ones.

Reading is thin: files below `root`, which tests replace. A resolver that is an address of the
host itself can't be used: guests never reach the host.
"""

from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from wrennd.core.errors import InvalidInput

PUBLIC = (IPv4Address("1.1.1.1"), IPv4Address("8.8.8.8"))
MAX_RESOLVERS = 3  # MAXNS of resolv.h: what a guest's libc looks at
RESOLV_CONF = "etc/resolv.conf"
# What is behind a local stub, by the program that runs it: systemd-resolved, NetworkManager's
# dnsmasq, resolvconf's record for dnsmasq, and that of the links themselves.
BEHIND_STUBS = (
    "run/systemd/resolve/resolv.conf",
    "run/NetworkManager/no-stub-resolv.conf",
    "run/NetworkManager/resolv.conf",
    "run/dnsmasq/resolv.conf",
    "run/resolvconf/resolv.conf",
)


def parse_resolv_conf(text: str) -> tuple[IPv4Address, ...]:
    """The IPv4 nameservers, in order and once each; resolv.conf(5)."""
    found: dict[IPv4Address, None] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found[IPv4Address(words[1])] = None
            except AddressValueError:
                continue  # IPv6: guests have none
    return tuple(found)


def parse_given(given: Sequence[str]) -> tuple[IPv4Address, ...]:
    """The values of `--dns`, each an IPv4 address. Errors: InvalidInput."""
    found: dict[IPv4Address, None] = {}
    for text in given:
        try:
            address = IPv4Address(text)
        except AddressValueError:
            raise InvalidInput(
                f"the resolver {text!r} is not an IPv4 address", hint="write --dns 1.1.1.1"
            ) from None
        if not _is_possible(address):
            raise InvalidInput(
                f"guests can't use {address} as a resolver",
                hint="a loopback, link-local or multicast address means another thing inside a "
                "guest; name the resolver behind it",
            )
        found[address] = None
    if len(found) > MAX_RESOLVERS:
        raise InvalidInput(
            f"{len(found)} resolvers are given", hint=f"give at most {MAX_RESOLVERS}"
        )
    return tuple(found)


def _is_possible(address: IPv4Address) -> bool:
    return not (
        address.is_loopback
        or address.is_unspecified
        or address.is_multicast
        or address.is_link_local
    )


def choose(
    given: Sequence[str], own: Iterable[IPv4Address], *, root: Path = Path("/")
) -> tuple[IPv4Address, ...]:
    """The resolvers of a sandbox; `own` are the addresses of this host.

    Errors: InvalidInput when one that was given is none, or is the host's own.
    """
    mine = set(own)
    if given:
        chosen = parse_given(given)
        for address in chosen:
            if address in mine:
                raise InvalidInput(
                    f"the resolver {address} is an address of this host, which sandboxes never "
                    "reach",
                    hint="name a resolver elsewhere, such as the one that it asks",
                )
        return chosen
    return _of_host(mine, root) or PUBLIC


def _of_host(mine: set[IPv4Address], root: Path) -> tuple[IPv4Address, ...]:
    for name in (RESOLV_CONF, *BEHIND_STUBS):
        usable = [
            address
            for address in parse_resolv_conf(_read(root / name))
            if _is_possible(address) and address not in mine
        ]
        if usable:
            return tuple(usable[:MAX_RESOLVERS])
    return ()


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # absent, a dangling link, not ours to read: the next one may do
        return ""
