"""What connects a call's stream with a process: its events out, a client's input in."""

from __future__ import annotations

from time import monotonic

from wrennd.envd import fields, jsontext
from wrennd.envd.connect import RpcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wrennd.envd.fields import Message
    from wrennd.envd.loop import Loop
    from wrennd.envd.pipes import Done
    from wrennd.envd.process import Process
    from wrennd.envd.rpc import Call, Stream

DEFAULT_KEEPALIVE_S = 90.0
KEEPALIVE = b'{"event":{"keepalive":{}}}'


def keepalive_s(headers: dict[str, str]) -> float:
    """Seconds of silence after which the client wants to hear from us."""
    text = headers.get("keepalive-ping-interval", "")
    if text.isascii() and text.isdigit() and len(text) <= 6 and int(text) > 0:
        return float(int(text))
    return DEFAULT_KEEPALIVE_S


class Heartbeat:
    """Sends a keepalive whenever a stream has been silent for as long as its client asked for."""

    def __init__(self, loop: Loop, stream: Stream, keepalive: bytes) -> None:
        self._loop = loop
        self._stream = stream
        self._keepalive = keepalive
        self._interval_s = keepalive_s(stream.headers)
        self._last_sent = monotonic()
        self._timer = loop.after(self._interval_s, self._ping)

    def send(self, text: bytes) -> None:
        self._last_sent = monotonic()
        self._stream.send(text)

    def stop(self) -> None:
        self._timer.cancel()

    def _ping(self) -> None:
        left_s = self._last_sent + self._interval_s - monotonic()
        if left_s <= 0 and not self._stream.is_full:
            self.send(self._keepalive)
        self._timer = self._loop.after(left_s if left_s > 0 else self._interval_s, self._ping)


class Feed:
    """A subscriber that sends a process's events down a stream."""

    def __init__(self, loop: Loop, stream: Stream) -> None:
        self.process: Process | None = None
        self._stream = stream
        self._heartbeat = Heartbeat(loop, stream, KEEPALIVE)
        stream.on_closed = self._closed
        stream.on_drained = self._drained

    @property
    def is_full(self) -> bool:
        return self._stream.is_full

    def started(self, process: Process) -> None:
        self.output(b'{"event":{"start":{"pid":%d}}}' % process.pid)

    def output(self, text: bytes) -> None:
        self._heartbeat.send(text)

    def ended(self, process: Process) -> None:
        last = jsontext.encode({"event": {"end": process.end}}).encode()
        self._heartbeat.stop()
        if process.timed_out:
            text = f"process {process.pid} ran longer than {process.limit_s:g} s and was killed"
            self._stream.end(RpcError("deadline_exceeded", text), last)
        else:
            self._stream.end(last=last)

    def failed(self, error: RpcError) -> None:
        self._heartbeat.stop()
        self._stream.end(error)

    def _closed(self) -> None:
        """The client is gone; the process goes on."""
        self._heartbeat.stop()
        if self.process is not None:
            self.process.unsubscribe(self)

    def _drained(self) -> None:
        if self.process is not None:
            self.process.resume()


def feed_input(process: Process, given: Message, done: Done) -> None:
    """Write a ProcessInput to the process. Errors: RpcError for input of the wrong kind."""
    kind = "pty" if process.terminal_fd >= 0 else "stdin"
    data = fields.blob(given, kind)
    if data is None:
        raise RpcError("invalid_argument", f"process {process.pid} takes its input as {kind!r}")
    if process.input is None:
        raise RpcError("internal", f"process {process.pid} was started without stdin")
    process.input.write(data, done)


class InputStream:
    """The messages of StreamInput: first the process, then data. One write at a time is open."""

    def __init__(self, select: Callable[[Message], Process], call: Call) -> None:
        self._select = select
        self._call = call
        self._process: Process | None = None
        self._pending = 0
        self._has_ended = False

    def message(self, message: Message) -> None:
        start = fields.message(message, "start")
        data = fields.message(message, "data")
        if start is not None:
            self._process = self._select(start)
        elif data is not None:
            if self._process is None:
                raise RpcError("invalid_argument", "data came before the process was named")
            self._pending += 1
            self._call.pause()
            feed_input(self._process, fields.message(data, "input") or {}, self._written)

    def end(self) -> None:
        self._has_ended = True
        self._answer()

    def _written(self, error: RpcError | None) -> None:
        self._pending -= 1
        if error is not None:
            self._call.fail(error)
        if not self._pending:
            self._call.resume()
        self._answer()

    def _answer(self) -> None:
        if self._has_ended and not self._pending:
            self._call.reply({})
