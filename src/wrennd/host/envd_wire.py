"""HTTP/1.1 to the guest's agent: one connection for each request, and waits that can end.

A guest does not say goodbye: when its VMM dies, its connections just fall silent. So every wait
here also watches the VMM's pidfd, the deadline, and `Wire.cancel` from another thread. Proxies
of the environment play no part, since nothing here reads it.
"""

import contextlib
import errno
import http.client
import io
import json
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from wrennd.core.deadline import Deadline
from wrennd.core.errors import (
    DeadlineExceeded,
    Error,
    GuestFailed,
    InvalidInput,
    NoCapacity,
    NotFound,
    VmmFailed,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

READ_BYTES = 128 << 10
SEND_BYTES = 64 << 10
# Of a reply that is taken as a whole. A directory of 10,000 names takes a fifth of it.
MAX_REPLY_BYTES = 16 << 20
MAX_WORDS = 1000
# A SYN that reached no listener is repeated by the kernel after 1 s only; a fresh connection each
# 20 ms finds the agent within 20 ms of its start. Older attempts stay open meanwhile, so that a
# guest which answers slowly is found too.
KNOCK_S = 0.02
KNOCKS_IN_FLIGHT = 16

_NOT_YET = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.ENETDOWN,
        errno.ETIMEDOUT,
    }
)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """An agent: where it listens, and the pidfd of its VMM (-1: none; owned by the caller)."""

    address: str
    port: int
    vmm_pidfd: int = -1

    def __str__(self) -> str:
        return f"the guest agent at {self.address}:{self.port}"


class Wire:
    """A connected socket as http.client wants it. Owns the socket; `close` may be called twice.

    Errors: DeadlineExceeded, VmmFailed, and OSError of the socket. `cancel` may be called from any
    thread; the one that waits then gets ConnectionAbortedError.
    """

    def __init__(self, sock: socket.socket, peer: Peer, deadline: Deadline | None) -> None:
        self.deadline = deadline
        self._socket = sock
        self._peer = peer
        self._is_cancelled = False
        self._is_closed = False
        self._files = 0
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def makefile(self, _mode: str) -> io.BufferedReader:
        self._files += 1
        return io.BufferedReader(_Incoming(self), READ_BYTES)

    def recv_into(self, buffer: "WriteableBuffer") -> int:
        while True:
            self._wait(select.POLLIN)
            with contextlib.suppress(BlockingIOError):
                count = self._socket.recv_into(buffer)
                self._check_cancelled()
                return count

    def sendall(self, data: "ReadableBuffer") -> None:
        view = memoryview(data)
        while view:
            self._wait(select.POLLOUT)
            with contextlib.suppress(BlockingIOError):
                view = view[self._socket.send(view[:SEND_BYTES]) :]

    def cancel(self) -> None:
        """Wake whoever waits for this connection, and end it."""
        self._is_cancelled = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """As sockets do it: what was made by `makefile` and is open goes on. http.client closes
        its connection before it reads a reply that ends with it."""
        self._is_closed = True
        if not self._files:
            self._socket.close()

    def file_closed(self) -> None:
        self._files -= 1
        if self._is_closed:
            self.close()

    def _wait(self, events: int) -> None:
        poll = select.poll()
        poll.register(self._socket, events)
        if self._peer.vmm_pidfd >= 0:
            poll.register(self._peer.vmm_pidfd, select.POLLIN)
        ready = dict(poll.poll(None if self.deadline is None else self.deadline.remaining_s * 1000))
        self._check_cancelled()
        if self._socket.fileno() in ready:
            return
        if ready:
            raise VmmFailed(f"the VMM ended while {self._peer} was answering")
        raise DeadlineExceeded(f"{self._peer} did not answer in time")

    def _check_cancelled(self) -> None:
        if self._is_cancelled:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the call was cancelled")


class _Incoming(io.RawIOBase):
    """What a wire receives, as a file."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        return self._wire.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            self._wire.file_closed()
        super().close()


class Dialer:
    """Attempts to connect, several in flight at once. Closes those that it did not hand out."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._poll = select.poll()
        self._attempts: dict[int, socket.socket] = {}
        if peer.vmm_pidfd >= 0:
            self._poll.register(peer.vmm_pidfd, select.POLLIN)

    def __enter__(self) -> "Dialer":
        return self

    def __exit__(self, *_raised: object) -> None:
        for sock in self._attempts.values():
            sock.close()

    def attempt(self) -> OSError | None:
        """Begin one more connection; the oldest is given up beyond KNOCKS_IN_FLIGHT."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        error = sock.connect_ex((self._peer.address, self._peer.port))
        if error not in (0, errno.EINPROGRESS):
            sock.close()
            return OSError(error, f"no connection to {self._peer}: {errno.errorcode[error]}")
        self._attempts[sock.fileno()] = sock
        self._poll.register(sock, select.POLLOUT)
        if len(self._attempts) > KNOCKS_IN_FLIGHT:
            self._drop(next(iter(self._attempts))).close()
        return None

    def wait(self, seconds: float) -> socket.socket | OSError | None:
        """A connection, why one failed, or None after that time. Errors: VmmFailed."""
        for fd, _events in self._poll.poll(max(0.0, seconds) * 1000):
            if fd == self._peer.vmm_pidfd:
                raise VmmFailed(f"the VMM ended before {self._peer} answered")
            sock = self._drop(fd)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not error:
                return sock
            sock.close()
            return OSError(error, f"no connection to {self._peer}: {errno.errorcode[error]}")
        return None

    def _drop(self, fd: int) -> socket.socket:
        self._poll.unregister(fd)
        return self._attempts.pop(fd)


def knock(peer: Peer, deadline: Deadline) -> socket.socket:
    """A connection to an agent that may not be there yet.

    Errors: DeadlineExceeded, VmmFailed; GuestFailed for what no waiting would change.
    """
    with Dialer(peer) as dialer:
        while not deadline.is_over:
            next_try = time.monotonic() + KNOCK_S
            _tolerate(dialer.attempt(), peer)
            while (left_s := min(next_try, deadline.at) - time.monotonic()) > 0:
                result = dialer.wait(left_s)
                if isinstance(result, socket.socket):
                    return result
                _tolerate(result, peer)
    raise DeadlineExceeded(f"{peer} did not answer in time")


def rest(peer: Peer, deadline: Deadline) -> None:
    """A moment between two attempts. Errors: VmmFailed."""
    with Dialer(peer) as dialer:
        dialer.wait(min(KNOCK_S, deadline.remaining_s))


def _tolerate(error: OSError | None, peer: Peer) -> None:
    if error is not None and error.errno not in _NOT_YET:
        raise GuestFailed(f"{peer} can't be reached: {error}") from error


def dial(peer: Peer, deadline: Deadline) -> socket.socket:
    """A connection to an agent that has answered before.

    Errors: GuestFailed when it refuses, DeadlineExceeded, VmmFailed.
    """
    with Dialer(peer) as dialer:
        result: socket.socket | OSError | None = dialer.attempt()
        if result is None:
            result = dialer.wait(deadline.remaining_s)
    if isinstance(result, OSError):
        raise GuestFailed(f"{peer} can't be reached any more: {result}") from result
    if result is None:
        raise DeadlineExceeded(f"{peer} could not be reached in time")
    return result


@dataclass(frozen=True, kw_only=True)
class Reply:
    status: int
    body: bytes


_BY_STATUS: dict[int, type[Error]] = {
    400: InvalidInput,
    401: InvalidInput,
    403: InvalidInput,
    404: NotFound,
    409: InvalidInput,
    507: NoCapacity,
}


@contextmanager
def understanding(what: str) -> Iterator[None]:
    """Make sense of what a guest answered. Errors: GuestFailed when it makes none."""
    try:
        yield
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise GuestFailed(f"the guest agent's answer to {what!r} makes no sense") from error


def words(text: str) -> str:
    """What a guest's agent said, fit to be shown and kept: MAX_WORDS characters of one line."""
    shown = "".join(c if c.isprintable() else " " for c in text[: MAX_WORDS + 1])
    return shown if len(shown) <= MAX_WORDS else f"{shown[:MAX_WORDS]}..."


def read_whole(response: http.client.HTTPResponse) -> bytes:
    """Its body. Errors: OSError when it breaks off; GuestFailed when there is no end of it."""
    data = response.read(MAX_REPLY_BYTES + 1)
    if len(data) > MAX_REPLY_BYTES:
        raise GuestFailed(f"the guest agent's reply has more than {MAX_REPLY_BYTES} bytes")
    return data


def check_reply(reply: Reply, what: str) -> None:
    """Errors: by the reply's status, with the agent's own words."""
    if reply.status < 300:
        return
    try:
        message = words(str(json.loads(reply.body)["message"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        message = f"status {reply.status}"
    kind = _BY_STATUS.get(reply.status, GuestFailed)
    raise kind(f"the guest could not {what}: {message}")


Content = bytes | BinaryIO | Iterable[bytes] | None
# Method, target, headers, body.
Request = tuple[str, str, Mapping[str, str], Content]


@contextmanager
def exchange(
    wire: Wire, method: str, target: str, headers: Mapping[str, str], body: Content = None
) -> Iterator[http.client.HTTPResponse]:
    """Send a request and get the head of its reply; the body is the caller's to read.

    Errors: as of Wire, OSError too when the reply breaks off; GuestFailed when it isn't HTTP.
    """
    connection = http.client.HTTPConnection("envd", blocksize=SEND_BYTES)
    connection.sock = wire  # typed as anything: http.client uses what Wire has, no more
    chunked = body is not None and not isinstance(body, bytes)
    framing = {"Transfer-Encoding": "chunked"} if chunked else {}
    try:
        # An agent that refuses a body stops reading it, but says why first.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, target, body, {**headers, **framing}, encode_chunked=chunked)
        with connection.getresponse() as response:
            yield response
    except http.client.HTTPException as error:
        raise broken_reply(error) from error
    finally:
        wire.close()


def broken_reply(error: http.client.HTTPException) -> OSError | GuestFailed:
    """What a broken reply means: the connection was cut, or that is not an agent."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, http.client.IncompleteRead):
        return ConnectionResetError(errno.ECONNRESET, "the reply broke off")
    return GuestFailed(f"the guest agent's reply is no HTTP: {error!r}")


def call(
    sock: socket.socket,
    peer: Peer,
    deadline: Deadline,
    request: Request,
    on_open: Callable[[Callable[[], None]], None] | None = None,
) -> Reply:
    """One request and its whole reply over a fresh connection.

    on_open: told what ends the call, from any thread. Errors: as of `exchange`.
    """
    method, target, headers, body = request
    wire = Wire(sock, peer, deadline)
    if on_open is not None:
        on_open(wire.cancel)
    with exchange(wire, method, target, headers, body) as response:
        return Reply(status=response.status, body=read_whole(response))
