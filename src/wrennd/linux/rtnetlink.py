"""rtnetlink(7): requests and answers as bytes, over one socket. No policy.

Why not pyroute2: importing any part of it takes 150 to 200 ms (its package imports all of itself),
which is five times what a whole slot takes. What is needed here is a header and attributes.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

NETLINK_ROUTE = 0
SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK = 10, 11
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x4, 0x10, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_TIMEOUT_S = 30.0  # the kernel answers at once, but a request may wait for the global RTNL lock
_DUMP_TRIES = 10


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to 4 bytes."""
    size = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(size, kind) + payload + b"\0" * (-size % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def nested(kind: int, *inside: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(inside))


def attributes(data: bytes) -> dict[int, bytes]:
    """Kind to payload; of a kind that comes twice the last one counts."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size or at + size > len(data):
            raise ValueError(f"a netlink attribute of {size} bytes does not fit at {at}")
        found[kind & NLA_TYPE_MASK] = data[at + _ATTRIBUTE.size : at + size]
        at += size + (-size % 4)
    return found


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message in a datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, flags, sequence, _port = _HEADER.unpack_from(data, at)
        if size < _HEADER.size or at + size > len(data):
            raise ValueError(f"a netlink message of {size} bytes does not fit at {at}")
        yield kind, flags, sequence, data[at + _HEADER.size : at + size]
        at += size + (-size % 4)


def check_error(body: bytes, flags: int, context: str) -> None:
    """Raise the OSError that an NLMSG_ERROR carries, with the kernel's own words if it has any."""
    (code,) = struct.unpack_from("=i", body)
    if code == 0:
        return
    said = os.strerror(-code)
    if flags & NLM_F_ACK_TLVS:
        # NETLINK_CAP_ACK: of the request only its header is repeated before the attributes.
        told = attributes(body[4 + _HEADER.size :]).get(NLMSGERR_ATTR_MSG, b"")
        if told:
            said += f" ({told.rstrip(bytes(1)).decode(errors='replace')})"
    raise OSError(-code, f"{said}: {context}")


class Rtnetlink:
    """A socket to the routing part of one network namespace: the one in which it was made.

    Resources: owns the socket; `close()` may be called twice. Not shared between threads.
    """

    def __init__(self, fd: int = -1) -> None:
        """`fd`: a netlink socket made in another namespace, owned from now on."""
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC,
            NETLINK_ROUTE,
            fileno=fd if fd >= 0 else None,
        )
        self._sequence = 0
        self._socket.settimeout(_TIMEOUT_S)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    def request(self, kind: int, flags: int, body: bytes, context: str) -> list[bytes]:
        """Send one request; the bodies of what comes back before the acknowledgement.

        Errors: the kernel's OSError, with `context` in its text; TimeoutError.
        """
        answers, _ = self._exchange(kind, NLM_F_REQUEST | NLM_F_ACK | flags, body, context)
        return answers

    def dump(self, kind: int, body: bytes, context: str) -> list[bytes]:
        """The bodies of all objects of a kind, consistent: asked again while they change."""
        for _ in range(_DUMP_TRIES):
            answers, changed = self._exchange(kind, NLM_F_REQUEST | NLM_F_DUMP, body, context)
            if not changed:
                return answers
        raise OSError(errno.EAGAIN, f"{context}: it changes faster than it can be read")

    def _exchange(
        self, kind: int, flags: int, body: bytes, context: str
    ) -> tuple[list[bytes], bool]:
        self._sequence += 1
        self._socket.send(message(kind, flags, self._sequence, body))
        answers: list[bytes] = []
        is_changed = False
        while True:
            for answer, its_flags, sequence, inside in messages(self._socket.recv(1 << 17)):
                if sequence != self._sequence:
                    continue  # the rest of an exchange that timed out
                is_changed |= bool(its_flags & NLM_F_DUMP_INTR)
                if answer in (NLMSG_ERROR, NLMSG_DONE):
                    check_error(inside, its_flags, context)
                    return answers, is_changed
                answers.append(inside)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
