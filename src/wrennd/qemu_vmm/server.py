"""The loop: API connections on a Unix socket, QEMU, and the clock of the metrics.

One thread. A request is answered before the next is looked at, as Firecracker does; a connection
whose answers are not read is not read from either.
"""

import errno
import selectors
import socket
from typing import Self

from wrennd.qemu_vmm import wire
from wrennd.qemu_vmm.controller import Controller
from wrennd.qemu_vmm.log import API_THREAD
from wrennd.qemu_vmm.options import ExitCode, Stop
from wrennd.qemu_vmm.qmp import QmpBroken

READ_SIZE = 64 << 10
BACKLOG = 128


class Connection:
    """One client: its socket, what it has sent, what it is still to get."""

    def __init__(self, sock: socket.socket, max_body: int) -> None:
        self.socket = sock
        self.parser = wire.Parser(max_body)
        self.outgoing = bytearray()

    def flush(self) -> None:
        """Send what the socket takes. Errors: OSError when the client is gone."""
        while self.outgoing:
            try:
                sent = self.socket.send(self.outgoing)
            except BlockingIOError:
                return
            del self.outgoing[:sent]


class Server:
    """Serves one controller until its guest is gone. Owns the listener and the connections."""

    def __init__(
        self, controller: Controller, listener: socket.socket | None, max_body: int
    ) -> None:
        self._controller, self._listener, self._max_body = controller, listener, max_body
        self._selector = selectors.EpollSelector()
        self._connections: dict[int, Connection] = {}
        self._watches_qemu = False
        if listener is not None:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)

    def run(self) -> int:
        """Serve. Returns the exit code of the program."""
        if self._listener is not None:
            self._controller.log.info("API server started.", API_THREAD)
        try:
            while (code := self._controller.end_of_qemu()) is None:
                self._watch_qemu()
                self._turn(self._controller.metrics.write_if_due())
        except QmpBroken as error:
            self._controller.log.error(f"{error}; vmm exiting.")
            return ExitCode.ERROR
        return code

    def _turn(self, timeout_s: float) -> None:
        for key, events in self._selector.select(timeout_s):
            if self._listener is not None and key.fd == self._listener.fileno():
                self._accept(self._listener)
            elif key.fd in self._connections:
                self._serve(self._connections[key.fd], events)
            elif self._controller.qemu is not None:
                self._controller.qemu.pump(0)

    def _watch_qemu(self) -> None:
        qemu = self._controller.qemu
        if qemu is not None and not self._watches_qemu:
            self._selector.register(qemu.fileno(), selectors.EVENT_READ)
            self._watches_qemu = True

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        sock.setblocking(False)
        if len(self._connections) >= wire.MAX_CONNECTIONS:
            with sock:
                try:
                    sock.send(wire.SERVER_FULL)
                except OSError as error:
                    if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.EAGAIN):
                        raise
            return
        self._connections[sock.fileno()] = Connection(sock, self._max_body)
        self._selector.register(sock, selectors.EVENT_READ)

    def _serve(self, connection: Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                data = connection.socket.recv(READ_SIZE)
                if not data:
                    self._drop(connection)
                    return
                self._answer(connection, data)
            connection.flush()
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        wanted = selectors.EVENT_WRITE if connection.outgoing else selectors.EVENT_READ
        self._selector.modify(connection.socket, wanted)

    def _answer(self, connection: Connection, data: bytes) -> None:
        events = connection.parser.feed(data)
        if events and isinstance(events[-1], wire.ParseError):
            events = events[-1:]
        for event in events:
            if isinstance(event, wire.Request):
                connection.outgoing += self._controller.handle(event)
                if self._controller.is_load_failed:
                    return  # that was the last answer
            elif isinstance(event, wire.Continue):
                connection.outgoing += wire.interim(event)
            else:
                connection.outgoing += event.to_response()

    def _drop(self, connection: Connection) -> None:
        del self._connections[connection.socket.fileno()]
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._selector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def listen(path: str) -> socket.socket:
    """Bind the API's socket. It is never unlinked, at the end neither. Errors: Stop."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            text = f"Failed to open the API socket at: {path}. Check that it is not already used."
        else:
            text = f"Failed to bind and run the HTTP server: {error}"
        raise Stop(ExitCode.ERROR, f"RunWithApiError error: {text}") from None
    return listener
