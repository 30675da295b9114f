"""One client's connection: requests in, replies out, nothing kept without bound.

A request is an `Exchange`, which its handler answers now or later. Input that nobody consumes
and output that the client doesn't read both stop at a limit: reading pauses, and `is_full` tells
the handler to wait for `drained`. A client that is slow therefore costs a fixed amount of memory.
"""

from __future__ import annotations

import os
import sys
from time import monotonic

from wrennd.envd import http, jsontext
from wrennd.envd.interpreter import SHUT_WR, SO_LINGER, SOL_SOCKET
from wrennd.envd.loop import BROKEN, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from wrennd.envd.interpreter import socket
    from wrennd.envd.loop import Loop

    Headers = list[tuple[str, str]]

    class Handler(Protocol):
        """Answers one exchange. Calls come in the order data*, end; drained and closed any time.

        After `closed` the client is gone, and nothing that is written matters.
        """

        def data(self, data: bytes) -> None: ...
        def end(self) -> None: ...
        def drained(self) -> None: ...
        def closed(self) -> None: ...


RECEIVE_BYTES = 256 << 10
MAX_PENDING_INPUT = 256 << 10
HIGH_WATER = 256 << 10
LOW_WATER = 64 << 10
HEAD_TIMEOUT_S = 30.0
# The hops in front of envd give up idle connections after 610 and 620 s; the innermost is last,
# so that no hop sends a request into a connection that is being closed.
IDLE_TIMEOUT_S = 640.0
LINGER_S = 1.0
LINGER_BYTES = 4 << 20
FAREWELL_S = 10.0
FILE_BURST_BYTES = 1 << 20
# struct linger: on, for no time at all. Closing then resets the connection.
RESET = (1).to_bytes(4, "little") + bytes(4)

CORS: Headers = [
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "*"),
]


class Exchange:
    """One request and the reply to it.

    Either `reply` once, or `begin`, `write` as often as needed, and `finish`. `abort` breaks the
    connection, which tells the client that what it has is not all.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "began",
        "finished",
        "handler",
        "is_complete",
        "request",
    )

    def __init__(self, connection: Connection, request: http.Request) -> None:
        self._connection = connection
        self._chunked = False
        self.request = request
        self.handler: Handler | None = None
        self.is_complete = False
        self.began = False
        self.finished = False

    @property
    def is_full(self) -> bool:
        """The client reads slower than we write: wait for `drained`."""
        return self._connection.pending_output >= HIGH_WATER

    @property
    def age_s(self) -> float:
        """Since the last of it arrived."""
        return self._connection.quiet_s

    def reply(self, status: int, headers: Headers, body: bytes = b"") -> None:
        sized = [] if status == 204 else [("Content-Length", str(len(body)))]
        # In one piece: most replies are small, and each write costs an emulated guest 0.4 ms.
        shown = b"" if self.request.method == "HEAD" else body
        self._connection.send(self._head_of(status, headers + sized) + shown)
        self._done()

    def reply_json(self, status: int, value: jsontext.Json, headers: Headers | None = None) -> None:
        kind = [("Content-Type", "application/json")]
        self.reply(status, kind + (headers or []), jsontext.encode(value).encode())

    def fail(self, status: int, message: str) -> None:
        """A plain HTTP error, in the shape that clients of /files and /init read."""
        self.reply_json(status, {"code": status, "message": message})

    def begin(self, status: int, headers: Headers) -> None:
        self._chunked = self.request.minor > 0
        if not self._chunked:
            self.request.keep_alive = False
        coding = [("Transfer-Encoding", "chunked")] if self._chunked else []
        self._head(status, headers + coding)

    def write(self, *parts: bytes) -> None:
        """More of the body: the parts one behind the other, joined only once."""
        if any(parts):
            self._connection.send(http.chunk(parts) if self._chunked else b"".join(parts))

    def finish(self, *parts: bytes) -> None:
        """The end of the body, with the last of it."""
        last = (http.chunk(parts) if self._chunked else b"".join(parts)) if any(parts) else b""
        if self._chunked or last:
            self._connection.send(last + http.LAST_CHUNK if self._chunked else last)
        self._done()

    def reply_file(
        self, status: int, headers: Headers, fd: int, part: range, done: Callable[[], None]
    ) -> None:
        """Answer with a part of an open file, which must have it; `done` when it is sent."""
        self._head(status, [*headers, ("Content-Length", str(len(part)))])

        def sent() -> None:
            done()
            self._done()

        self._connection.send_file(fd, part, sent)

    def abort(self) -> None:
        self._connection.close()

    def pause(self) -> None:
        """Take no more of the request's body until `resume`."""
        self._connection.pause()

    def resume(self) -> None:
        self._connection.resume()

    def forget_others(self) -> None:
        """Drop every connection but this one."""
        self._connection.forget_others()

    def _head(self, status: int, headers: Headers) -> None:
        self._connection.send(self._head_of(status, headers))

    def _head_of(self, status: int, headers: Headers) -> bytes:
        self.began = True
        if not self.is_complete:
            # What is left of the request would be taken for the next one.
            self.request.keep_alive = False
        closing = [] if self.request.keep_alive else [("Connection", "close")]
        return http.reply_head(status, headers + CORS + closing)

    def _done(self) -> None:
        self.finished = True
        self._connection.exchange_done()


class Connection:
    """Owns the socket. `gone` is called once, after it is closed."""

    def __init__(
        self,
        loop: Loop,
        sock: socket,
        route: Callable[[Exchange], Handler],
        gone: Callable[[Connection], None],
        forget_others: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._fd = sock.fileno()
        self._route = route
        self._gone = gone
        self._forget_others = forget_others
        self._parser = http.RequestParser()
        self._output = bytearray()
        # A file to be sent behind `_output`: descriptor, what is left of it, what to call then.
        self._file: tuple[int, range, Callable[[], None]] | None = None
        self._exchange: Exchange | None = None
        self._paused = False
        self._eof = False
        self._was_full = False
        self._is_advancing = False
        self._is_held = False
        self._lingering = False
        self._discarded = 0
        self._last_input = monotonic()
        self._loop.watch(self._fd, READ, self._ready)

    @property
    def quiet_s(self) -> float:
        """Since anything was received."""
        return monotonic() - self._last_input

    @property
    def pending_output(self) -> int:
        return len(self._output)

    def close(self) -> None:
        """Let go of the socket and tell the handler. May be called again."""
        if self._fd < 0:
            return
        self._loop.unwatch(self._fd)
        self._fd = -1
        self._socket.close()
        self._output.clear()
        self._file = None
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.handler is not None and not exchange.finished:
            # Later, since the handler may be what called us.
            self._loop.soon(exchange.handler.closed)
        self._gone(self)

    def reset(self) -> None:
        """Close at once for both sides. The kernel, too, keeps nothing for a peer that is gone."""
        if self._fd >= 0:
            self._socket.setsockopt(SOL_SOCKET, SO_LINGER, RESET)
            self.close()

    def hold(self, spared: tuple[str, ...]) -> None:
        """Stand still until `release`, if a request is being answered, but for these paths."""
        exchange = self._exchange
        if exchange is not None and not exchange.finished and exchange.request.path not in spared:
            self._is_held = True
            self._watch()

    def release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._loop.soon(self._next)
            self._loop.soon(self._advance)
            self._watch()

    def forget_others(self) -> None:
        self._forget_others(self)

    def check_age(self, now: float) -> None:
        """Close what has been silent for longer than it may."""
        quiet_s = now - self._last_input
        if self._exchange is None and not self._output and not self._lingering:
            limit = IDLE_TIMEOUT_S if self._parser.is_idle else HEAD_TIMEOUT_S
            if quiet_s > limit:
                self.close()

    def pause(self) -> None:
        self._paused = True
        self._watch()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._loop.soon(self._advance)

    def send(self, data: bytes) -> None:
        """Write what the socket takes of `data`, and queue the rest. An error closes."""
        if self._fd < 0:
            return
        if self._output or self._file is not None or self._is_held:
            self._output += data
        else:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            if sent < len(data):
                self._output += memoryview(data)[sent:]
                self._watch()
        self._was_full = self._was_full or len(self._output) >= HIGH_WATER

    def send_file(self, fd: int, part: range, done: Callable[[], None]) -> None:
        """Send this part of a file that the caller keeps open until `done`, or its `closed`."""
        if self._fd >= 0:
            self._file = (fd, part, done)
            if not self._is_held:
                self._flush()

    def exchange_done(self) -> None:
        """The reply is written: go on with the next request, or end."""
        self._loop.soon(self._next)

    def _ready(self, events: int) -> None:
        try:
            if events & BROKEN:
                self.close()
                return
            if self._output or self._file is not None:
                self._flush()
                self._tell_drained()
            if self._fd >= 0 and self._wants_input:
                self._receive()
        except Exception:  # noqa: BLE001 - a bug in one handler ends its connection only
            sys.excepthook(*sys.exc_info())
            self.close()

    @property
    def _wants_input(self) -> bool:
        is_full = self._parser.buffered >= MAX_PENDING_INPUT
        return not (self._eof or self._paused or is_full)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._last_input = monotonic()
        if not data:
            self._end_of_input()
        elif self._lingering:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.close()
        else:
            self._parser.feed(data)
            self._advance()

    def _end_of_input(self) -> None:
        """The client sends no more. It may still want the reply to what it sent in full."""
        self._eof = True
        exchange = self._exchange
        is_answering = exchange is not None and exchange.is_complete
        if self._lingering or not (is_answering or self._output):
            self.close()
        else:
            self._watch()

    def _advance(self) -> None:
        """Hand on what was received, as far as it goes."""
        if self._fd < 0 or self._is_advancing or self._is_held:
            return
        self._is_advancing = True
        try:
            while self._fd >= 0 and not self._paused and not self._lingering:
                if self._exchange is not None and self._exchange.is_complete:
                    break
                event = self._parser.next_event()
                if event is None:
                    break
                self._handle(event)
        except http.ParseError as error:
            self._refuse(error)
        finally:
            self._is_advancing = False
        self._watch()

    def _handle(self, event: http.Request | bytes | http.EndOfMessage) -> None:
        if isinstance(event, http.Request):
            self._exchange = exchange = Exchange(self, event)
            exchange.handler = self._route(exchange)
            if event.expects_continue and not exchange.finished:
                self.send(http.CONTINUE)
            return
        exchange_now = self._exchange
        assert exchange_now is not None
        assert exchange_now.handler is not None
        if isinstance(event, bytes):
            if not exchange_now.finished:
                exchange_now.handler.data(event)
        else:
            exchange_now.is_complete = True
            if not exchange_now.finished:
                exchange_now.handler.end()

    def _refuse(self, error: http.ParseError) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.handler is not None:
            self._loop.soon(exchange.handler.closed)
        body = jsontext.encode({"code": error.status, "message": error.message}).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        # In the middle of a reply an error would be taken for more of it.
        if exchange is None or not exchange.began:
            self.send(http.reply_head(error.status, headers + CORS) + body)
        self._linger()

    def _next(self) -> None:
        exchange = self._exchange
        if self._fd < 0 or exchange is None or not exchange.finished or self._is_held:
            return
        self._exchange = None
        if not exchange.request.keep_alive:
            self._linger()
        else:
            self._last_input = monotonic()
            self._advance()
            if self._eof and self._exchange is None and not self._output:
                self.close()

    def _linger(self) -> None:
        """Say that no more comes, but read on for a moment.

        Closing with unread input would reset the connection, and the reset may overtake the
        reply that says what was wrong.
        """
        self._lingering = True
        if self._fd >= 0:
            self._loop.after(FAREWELL_S, self.close)
            if not self._output:
                self._shut()

    def _shut(self) -> None:
        if self._eof:
            self.close()
            return
        try:
            self._socket.shutdown(SHUT_WR)
        except OSError:
            self.close()
            return
        self._loop.after(LINGER_S, self.close)
        self._watch()

    def _flush(self) -> None:
        try:
            while self._output:
                with memoryview(self._output) as view:
                    sent = self._socket.send(view[:MAX_PENDING_INPUT])
                del self._output[:sent]
            if self._file is not None:
                self._flush_file(*self._file)
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if not self._output and self._file is None:
            if self._lingering:
                self._shut()
            elif self._eof and self._exchange is None:
                self.close()
        self._watch()

    def _flush_file(self, fd: int, part: range, done: Callable[[], None]) -> None:
        """A burst of the file; the rest when it is the others' turn again. Errors: OSError."""
        burst = FILE_BURST_BYTES
        while part and burst > 0:
            sent = os.sendfile(self._fd, fd, part.start, min(len(part), burst))
            if not sent:
                # It has become shorter than what was promised.
                self.close()
                return
            burst -= sent
            part = part[sent:]
            self._file = (fd, part, done)
        if not part:
            self._file = None
            done()

    def _tell_drained(self) -> None:
        if self._was_full and len(self._output) <= LOW_WATER:
            self._was_full = False
            exchange = self._exchange
            if exchange is not None and exchange.handler is not None and not exchange.finished:
                exchange.handler.drained()

    def _watch(self) -> None:
        if self._fd < 0:
            return
        events = (READ if self._wants_input else 0) | (
            WRITE if self._output or self._file is not None else 0
        )
        self._loop.watch(self._fd, 0 if self._is_held else events, self._ready)
