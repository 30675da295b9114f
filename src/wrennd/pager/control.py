"""Control of a pager: sequenced packets, one JSON object each way; docs/memory.md has the table.

Owns the encoding at both ends, and the keeper's connections; not what the operations do.
"""

import json
import os
import socket
from collections.abc import Callable
from typing import Any

from wrennd.pager.loop import Loop

MAX_BYTES = 4096

Message = dict[str, Any]


class ControlError(ValueError):
    """A packet that is no request or no answer."""


def send(connection: socket.socket, message: Message, fd: int | None = None) -> None:
    """Errors: OSError, BrokenPipeError when the other end is gone."""
    fds = [] if fd is None else [fd]
    socket.send_fds(connection, [json.dumps(message).encode()], fds, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket) -> tuple[Message, int] | None:
    """One message and its descriptor, -1 when it has none; None when the other end is gone.

    The caller owns the descriptor. Errors: ControlError; OSError.
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


class Desk:
    """The keeper's end: who asks, and who waits for an answer.

    answer: makes the answer to a request; None means later, it is asked again at each `remind`;
    ControlError that the asker is to be dropped. Resources: owns its connections.
    """

    def __init__(
        self,
        loop: Loop,
        listening: socket.socket,
        starter: socket.socket,
        answer: Callable[[Message, int], Message | None],
    ) -> None:
        self._loop = loop
        self._listening = listening
        self._answer = answer
        self._connections: list[socket.socket] = []
        self._waiting: list[tuple[socket.socket, Message]] = []
        loop.watch(listening.fileno(), lambda: self._take(listening.accept()[0]))
        self._take(starter)

    def remind(self) -> None:
        """Something has changed: those who wait may have their answer."""
        waiting, self._waiting = self._waiting, []
        for connection, request in waiting:
            self._try(connection, request, -1)

    def leave(self) -> None:
        """In a child: close its copies of the connections."""
        self._listening.close()
        for connection in self._connections:
            connection.close()

    def _take(self, connection: socket.socket) -> None:
        self._connections.append(connection)
        self._loop.watch(connection.fileno(), lambda: self._serve(connection))

    def _serve(self, connection: socket.socket) -> None:
        try:
            found = receive(connection)
        except (ControlError, OSError):
            found = None
        if found is None:
            self._drop(connection)
            return
        request, fd = found
        try:
            self._try(connection, request, fd)
        finally:
            if fd >= 0:
                os.close(fd)

    def _try(self, connection: socket.socket, request: Message, fd: int) -> None:
        try:
            answer = self._answer(request, fd)
            if answer is None:
                self._waiting.append((connection, request))
            else:
                # Tells one who gave up waiting for an earlier answer which one this is.
                send(connection, answer | {"id": request.get("id")})
        except (ControlError, OSError):
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._waiting = [item for item in self._waiting if item[0] is not connection]
        self._connections.remove(connection)
        self._loop.unwatch(connection.fileno())
        connection.close()
