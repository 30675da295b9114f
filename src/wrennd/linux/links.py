"""Network links over rtnetlink: list, make veth pairs, change, delete; named, not numbered."""

import errno
import socket
import struct
from dataclasses import dataclass

from wrennd.linux.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Rtnetlink,
    attribute,
    attributes,
    nested,
    text,
    u32,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO = 1, 3, 4, 18
IFLA_IFALIAS, IFLA_GROUP, IFLA_NET_NS_FD = 20, 27, 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1
IFF_UP = 1

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change


@dataclass(frozen=True, kw_only=True)
class Link:
    """A link as the kernel describes it."""

    index: int
    name: str
    alias: str
    mtu: int
    group: int
    is_up: bool


@dataclass(frozen=True, kw_only=True)
class Port:
    """One end of a veth pair to be made. `group` is the device group (0: none)."""

    name: str
    mac: str
    mtu: int
    group: int = 0

    def encode(self) -> bytes:
        return b"".join(
            (
                text(IFLA_IFNAME, self.name),
                attribute(IFLA_ADDRESS, mac_bytes(self.mac)),
                u32(IFLA_MTU, self.mtu),
                u32(IFLA_GROUP, self.group),
            )
        )


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _header(*, index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, flags, change)


def parse(body: bytes) -> Link:
    _family, _type, index, flags, _change = _IFINFOMSG.unpack_from(body)
    found = attributes(body[_IFINFOMSG.size :])

    def string(kind: int) -> str:
        return found.get(kind, b"").rstrip(b"\0").decode(errors="replace")

    def number(kind: int) -> int:
        return int.from_bytes(found.get(kind, b""), "little")

    return Link(
        index=index,
        name=string(IFLA_IFNAME),
        alias=string(IFLA_IFALIAS),
        mtu=number(IFLA_MTU),
        group=number(IFLA_GROUP),
        is_up=bool(flags & IFF_UP),
    )


def links(rt: Rtnetlink) -> list[Link]:
    return [parse(body) for body in rt.dump(RTM_GETLINK, _header(), "listing links")]


def find(rt: Rtnetlink, name: str) -> Link | None:
    return _get(rt, _header() + text(IFLA_IFNAME, name), name)


def by_index(rt: Rtnetlink, index: int) -> Link | None:
    return _get(rt, _header(index=index), f"link {index}")


def _get(rt: Rtnetlink, body: bytes, context: str) -> Link | None:
    try:
        (answer,) = rt.request(RTM_GETLINK, 0, body, context)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return parse(answer)


def add_veth(rt: Rtnetlink, port: Port, peer: Port, *, peer_netns: int) -> None:
    """Make a pair: `port` here, `peer` at once in the namespace of the descriptor `peer_netns`.

    Errors: OSError (EEXIST: one of the names is taken).
    """
    away = _header() + peer.encode() + u32(IFLA_NET_NS_FD, peer_netns)
    info = nested(
        IFLA_LINKINFO,
        text(IFLA_INFO_KIND, "veth"),
        nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, away)),
    )
    rt.request(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        _header() + port.encode() + info,
        f"making the veth pair {port.name} and {peer.name}",
    )


def change(rt: Rtnetlink, name: str, *, alias: str = "", mac: str = "") -> None:
    """Set those that are given."""
    body = _header() + text(IFLA_IFNAME, name)
    if alias:
        body += text(IFLA_IFALIAS, alias)
    if mac:
        body += attribute(IFLA_ADDRESS, mac_bytes(mac))
    rt.request(RTM_SETLINK, 0, body, f"changing the link {name}")


def set_up(rt: Rtnetlink, name: str) -> None:
    body = _header(flags=IFF_UP, change=IFF_UP) + text(IFLA_IFNAME, name)
    rt.request(RTM_SETLINK, 0, body, f"setting the link {name} up")


def delete(rt: Rtnetlink, name: str) -> bool:
    """Delete a link (a veth takes its peer with it); False when there is none."""
    try:
        rt.request(RTM_DELLINK, 0, _header() + text(IFLA_IFNAME, name), f"deleting the link {name}")
    except OSError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return True
