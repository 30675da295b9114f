"""The listening socket and the connections that came in through it."""

from __future__ import annotations

import sys
from time import monotonic

from wrennd.envd.connection import Connection
from wrennd.envd.gate import CONTROL
from wrennd.envd.interpreter import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SO_KEEPALIVE,
    SO_REUSEADDR,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    accept,
    socket,
)
from wrennd.envd.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wrennd.envd.connection import Exchange, Handler
    from wrennd.envd.gate import Gate
    from wrennd.envd.loop import Loop

BACKLOG = 128
MAX_CONNECTIONS = 512
# Beyond that for the host alone: after a restore the others are all dead, and in its way.
RESERVED_CONNECTIONS = 32
ACCEPTS_A_TURN = 16
SWEEP_S = 10.0


def listen(address: str, port: int) -> socket:
    """A bound, listening socket. Errors: OSError."""
    sock = socket(AF_INET6 if ":" in address else AF_INET, SOCK_STREAM)
    sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen(BACKLOG)
    return sock


def adopt(fd: int) -> socket:
    """A listening socket that the parent made and passed on."""
    sock = socket(fileno=fd)
    sock.listen(BACKLOG)
    return sock


class Server:
    """Owns the listener and every connection.

    When there are as many connections as are allowed, or descriptors run out, it accepts no more
    until one has gone; clients wait in the backlog meanwhile. While the gate is shut, what clients
    had asked for before stands still: nothing is taken from them nor given to them.
    """

    def __init__(
        self,
        loop: Loop,
        listener: socket,
        route: Callable[[Exchange], Handler],
        gate: Gate,
    ) -> None:
        self._loop = loop
        self._gate = gate
        gate.on_change = self._gate_changed
        self._listener = listener
        self._listener.setblocking(False)
        self._route = route
        self._connections: set[Connection] = set()
        self._sweeping = False
        self._loop.watch(listener.fileno(), READ, self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def _limit(self) -> int:
        return MAX_CONNECTIONS + (0 if self._gate.is_open else RESERVED_CONNECTIONS)

    def _gate_changed(self) -> None:
        for connection in list(self._connections):
            if self._gate.is_open:
                connection.release()
            else:
                connection.hold(CONTROL)
        self._resume()

    def _accept(self, _events: int) -> None:
        for _ in range(ACCEPTS_A_TURN):
            if len(self._connections) >= self._limit:
                self._rest()
                return
            try:
                sock = accept(self._listener)
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:
                sys.stderr.write(f"envd: cannot accept a connection: {error}\n")
                self._rest()
                return
            self._welcome(sock)

    def _welcome(self, sock: socket) -> None:
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
        connection = Connection(self._loop, sock, self._route, self._forget, self._forget_others)
        self._connections.add(connection)
        if not self._sweeping:
            self._sweeping = True
            self._loop.after(SWEEP_S, self._sweep)

    def _rest(self) -> None:
        self._loop.unwatch(self._listener.fileno())
        self._loop.after(SWEEP_S, self._resume)

    def _resume(self) -> None:
        self._loop.watch(self._listener.fileno(), READ, self._accept)

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._resume()

    def _forget_others(self, kept: Connection) -> None:
        for connection in self._connections - {kept}:
            connection.reset()

    def _sweep(self) -> None:
        """Close connections that say nothing. With none left an idle guest has no timer at all."""
        now = monotonic()
        for connection in list(self._connections):
            connection.check_age(now)
        self._sweeping = bool(self._connections)
        if self._sweeping:
            self._loop.after(SWEEP_S, self._sweep)
