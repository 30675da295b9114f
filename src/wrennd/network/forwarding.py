"""IPv4 forwarding on the host: turned on for no more than the slots need, and off again.

IPv4 decides by the link on which a packet arrives (`conf.<link>.forwarding`), so `ip_forward`
itself is left alone: a slot's link is switched on when it is made, the uplinks here. Which
uplinks we switched on is the content of a set in the table `inet wrenn-forwarding`; the kernel
forgets both at a reboot. Callers hold the slots' lock.
"""

import contextlib
from collections.abc import Iterable

from wrennd.core.errors import HostUnsuitable
from wrennd.linux import nftables, sysctl
from wrennd.network.firewall import FORWARDING_SET, FORWARDING_TABLE, forwarding_rules


def _switch(link: str) -> str:
    return f"ipv4/conf/{link}/forwarding"


def is_router() -> bool:
    """Whether somebody made this host forward for all (net.ipv4.ip_forward)."""
    return sysctl.read("ipv4/ip_forward") == 1


def switched_off(links: Iterable[str]) -> list[str]:
    return [link for link in links if sysctl.read(_switch(link)) == 0]


def guard(off: list[str]) -> str:
    """The rules that must be in force before `off` are switched on.

    On a host that is a router whom it forwards for is for others to say: an old guard goes.
    """
    if is_router():
        return f"add table inet {FORWARDING_TABLE}\ndelete table inet {FORWARDING_TABLE}\n"
    return forwarding_rules(off) if off else ""


def switch_on(link: str) -> None:
    """Errors: HostUnsuitable where /proc/sys can't be written (a container)."""
    try:
        sysctl.write(_switch(link), 1)
    except OSError as error:
        raise HostUnsuitable(
            f"forwarding can't be turned on for the link {link}: {error.strerror}",
            hint=f"sandboxes need net.ipv4.conf.{link}.forwarding = 1; in a container, "
            "/proc/sys/net must be writable",
        ) from error


def undo() -> None:
    """Switch off what we switched on. For when the host has no slot left."""
    if ("inet", FORWARDING_TABLE) not in nftables.tables():
        return
    if not is_router():
        for link in nftables.set_elements(FORWARDING_TABLE, FORWARDING_SET):
            with contextlib.suppress(FileNotFoundError):  # that link is gone
                sysctl.write(_switch(link), 0)
    nftables.delete_table(FORWARDING_TABLE)
