"""Taking the VMM's message: who connected, and what it sends, with its descriptor, in time."""

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Iterator

from wrennd.pager import abi
from wrennd.pager.handshake import MAX_BYTES, Handshake, Refused, decode

_UCRED = struct.Struct("3i")  # pid, uid, gid
_MANY = 8  # descriptors: enough to see that there are too many


def peer_pidfd(connection: socket.socket) -> int | None:
    """Of the process that connected; None when it has another uid than ours, or has ended."""
    size = _UCRED.size
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if uid != os.getuid():
        return None
    try:
        return connection.getsockopt(socket.SOL_SOCKET, abi.SO_PEERPIDFD)
    except OSError:  # before Linux 6.5
        with contextlib.suppress(ProcessLookupError):
            return os.pidfd_open(pid)
    return None


def receive(
    connection: socket.socket, pages: int, peer: int, timeout_s: float
) -> tuple[int, Handshake]:
    """The userfaultfd and what the VMM says of its memory. Errors: Refused, OSError."""
    data, fds = b"", list[int]()
    until = time.monotonic() + timeout_s
    connection.setblocking(False)
    for piece, more in _pieces(connection, peer, until):
        data += piece
        fds += more
        if len(fds) > 1:
            raise Refused("it came with more than one descriptor")
        if (found := decode(data, pages)) is not None:
            if not fds:
                raise Refused("it came without the userfaultfd")
            os.set_blocking(fds[0], False)
            return fds[0], found
    raise AssertionError("pieces end by an error")


def _pieces(
    connection: socket.socket, peer: int, until: float
) -> Iterator[tuple[bytes, list[int]]]:
    while True:
        left = until - time.monotonic()
        if left <= 0:
            raise Refused("it was not complete in time")
        ready = select.select([connection.fileno(), peer], [], [], left)[0]
        if connection.fileno() in ready:
            piece, fds, flags, _ = socket.recv_fds(
                connection, MAX_BYTES, _MANY, socket.MSG_CMSG_CLOEXEC
            )
            if not piece or flags & socket.MSG_CTRUNC:
                raise Refused("it ended early" if not piece else "it came with many descriptors")
            yield piece, fds
        elif ready:
            raise Refused("the VMM ended before it was complete")
