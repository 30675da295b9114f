"""IPv4 addresses and routes over rtnetlink: list, add, and ask where a packet would go."""

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from wrennd.linux.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Rtnetlink,
    attribute,
    attributes,
    u32,
)

RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE = 20, 22, 24, 26
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 4, 0, 1
RTM_F_FIB_MATCH = 0x2000

_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, link index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags


@dataclass(frozen=True, kw_only=True)
class Route:
    """`link` is the index of the outgoing link, 0 for several or none."""

    destination: IPv4Network
    link: int
    table: int


def addresses(rt: Rtnetlink) -> list[IPv4Address]:
    """Every IPv4 address of this namespace."""
    header = _IFADDRMSG.pack(socket.AF_INET, 0, 0, 0, 0)
    found = []
    for body in rt.dump(RTM_GETADDR, header, "listing addresses"):
        inside = attributes(body[_IFADDRMSG.size :])
        local = inside.get(IFA_LOCAL) or inside.get(IFA_ADDRESS)
        if local:
            found.append(IPv4Address(local))
    return found


def add_address(rt: Rtnetlink, link: int, address: IPv4Address, prefix: int) -> None:
    body = _IFADDRMSG.pack(socket.AF_INET, prefix, 0, RT_SCOPE_UNIVERSE, link)
    body += attribute(IFA_LOCAL, address.packed) + attribute(IFA_ADDRESS, address.packed)
    rt.request(
        RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, f"adding the address {address}/{prefix}"
    )


def add_default(rt: Rtnetlink, link: int, gateway: IPv4Address) -> None:
    body = _RTMSG.pack(
        socket.AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0
    )
    body += u32(RTA_OIF, link) + attribute(RTA_GATEWAY, gateway.packed)
    rt.request(
        RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, f"adding the default route by {gateway}"
    )


def routes(rt: Rtnetlink) -> list[Route]:
    """Every IPv4 route of every table, those to own addresses included."""
    header = _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
    return [parse(body) for body in rt.dump(RTM_GETROUTE, header, "listing routes")]


def parse(body: bytes) -> Route:
    _family, length, _src, _tos, table, _proto, _scope, _type, _flags = _RTMSG.unpack_from(body)
    found = attributes(body[_RTMSG.size :])
    destination = int.from_bytes(found.get(RTA_DST, bytes(4)), "big")
    return Route(
        destination=IPv4Network((destination, length), strict=False),
        link=int.from_bytes(found.get(RTA_OIF, b""), "little"),
        table=int.from_bytes(found.get(RTA_TABLE, bytes([table])), "little"),
    )


def lookup(rt: Rtnetlink, address: IPv4Address) -> Route | None:
    """The way that a packet to `address` takes now, its destination being that one address.

    None when there is none. Errors: OSError (EACCES, EINVAL for prohibit and blackhole routes).
    """
    return _lookup(rt, address, 0)


def matching(rt: Rtnetlink, address: IPv4Address) -> Route | None:
    """The routing table's entry that decides about `address` (Linux 4.13). Errors as `lookup`."""
    return _lookup(rt, address, RTM_F_FIB_MATCH)


def _lookup(rt: Rtnetlink, address: IPv4Address, flags: int) -> Route | None:
    body = _RTMSG.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, flags)
    body += attribute(RTA_DST, address.packed)
    try:
        answers = rt.request(RTM_GETROUTE, 0, body, f"looking for a route to {address}")
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return None
        raise
    return parse(answers[0])
