"""Control of a pager: sequenced packets, one JSON object each way; docs/memory.md has the table.

Owns the two ends' encoding and the keeper's connections, not what the operations do.
"""

import json
import os
import socket
from typing import Any

MAX_BYTES = 4096


class ControlError(ValueError):
    """A packet that is no request or no answer."""


def send(connection: socket.socket, message: dict[str, Any], fd: int | None = None) -> None:
    """Errors: OSError, BrokenPipeError when the other end is gone."""
    fds = [] if fd is None else [fd]
    socket.send_fds(connection, [json.dumps(message).encode()], fds, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket) -> tuple[dict[str, Any], int] | None:
    """One message and its descriptor, -1 when it has none; None when the other end is gone.

    The caller owns the descriptor. Errors: ControlError.
    """
    data, fds, _, _ = socket.recv_fds(connection, MAX_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    try:
        message = json.loads(data)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        for fd in fds:
            os.close(fd)
        raise ControlError("not a JSON object")
    return message, fds[0] if fds else -1
