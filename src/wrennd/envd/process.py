"""One process that envd started: its events, its output, its end.

Output goes to whoever subscribes; with no subscriber it is read and dropped, so that the process
goes on. A subscriber that is full stops the reading of that process, for everybody.

The end is told when everything that the process itself wrote has been delivered. A descendant
that still holds the streams may have more to say, so envd waits for the streams to close, but not
beyond QUIET_LOOKS looks without output nor GRACE_S in all; what comes later is read and dropped,
since closing the streams would kill a daemon that logs to them.
"""

from __future__ import annotations

import os
from binascii import b2a_base64
from time import monotonic

from wrennd.envd.connect import RpcError
from wrennd.envd.loop import READ
from wrennd.envd.pipes import Input, Output
from wrennd.envd.spawn import explain, fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from wrennd.envd.fields import Message
    from wrennd.envd.loop import Loop, Timer
    from wrennd.envd.spawn import Launch
    from wrennd.envd.stdio import Stdio

    class Subscriber(Protocol):
        """Gets the events of one process: started or failed, output, ended."""

        @property
        def is_full(self) -> bool: ...
        def started(self, process: Process) -> None: ...
        def output(self, text: bytes) -> None: ...
        def ended(self, process: Process) -> None: ...
        def failed(self, error: RpcError) -> None: ...


# Looks, not time: a guest that its host did not run for a while has not been quiet.
LOOK_S = 0.05
QUIET_LOOKS = 4
GRACE_S = 2.0
SIGKILL = 9
MAX_REPORT_BYTES = 64

# As the reference agent names them; the rest is "signal N".
SIGNAL_NAMES = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    4: "illegal instruction",
    5: "trace/breakpoint trap",
    6: "aborted",
    7: "bus error",
    8: "floating point exception",
    9: "killed",
    10: "user defined signal 1",
    11: "segmentation fault",
    12: "user defined signal 2",
    13: "broken pipe",
    14: "alarm clock",
    15: "terminated",
}


def end_event(status: int) -> Message:
    """The end event's fields of a wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        text = "signal: " + SIGNAL_NAMES.get(number, f"signal {number}")
        if os.WCOREDUMP(status):
            text += " (core dumped)"
        return {"exitCode": -1, "exited": False, "status": text, "error": text, "signal": number}
    code = os.WEXITSTATUS(status)
    text = f"exit status {code}"
    end: Message = {"exitCode": code, "exited": True, "status": text}
    return end | {"error": text} if code else end


def data_event(name: str, data: bytes) -> bytes:
    """The JSON of an output event, put together by hand: it is most of what envd sends."""
    encoded = b2a_base64(data, newline=False)
    return b'{"event":{"data":{"%b":"%b"}}}' % (name.encode(), encoded)


class Process:
    """Owns the child, its pidfd and our ends of its streams.

    `gone` is called once when it has ended, or could not be started at all.
    """

    def __init__(
        self, loop: Loop, launch: Launch, tag: str | None, gone: Callable[[Process], None]
    ) -> None:
        self.launch = launch
        self.tag = tag
        self.pid = 0
        self.input: Input | None = None
        self.terminal_fd = -1
        self.end: Message | None = None
        self.limit_s: float | None = None
        self.timed_out = False
        self._loop = loop
        self._gone = gone
        self._is_started = False
        self._pidfd = -1
        self._status: int | None = None
        self._outputs: list[Output] = []
        self._subscribers: list[Subscriber] = []
        self._deadline: Timer | None = None
        self._grace_ends = 0.0
        self._quiet_looks = 0
        self._is_paused = False

    def start(self, stdio: Stdio) -> None:
        """Fork. Whether the command could be executed is told to the subscribers later.

        Errors: OSError when a process or descriptor is not to be had; nothing is left then.
        """
        self.pid, report = fork(self.launch, stdio.child_fds(), has_terminal=stdio.is_terminal)
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            os.close(report)
            os.kill(self.pid, SIGKILL)
            os.waitpid(self.pid, 0)
            raise
        stdio.close_child()
        if stdio.input >= 0:
            self.terminal_fd = stdio.input if stdio.is_terminal else -1
            self.input = Input(self._loop, stdio.take_input())
        for name, fd in stdio.take_outputs().items():
            output = Output(self._loop, name, fd, stdio.chunk_bytes, self._output, self._closed)
            # Not read before subscribers were told of the start, which must come first.
            output.pause()
            self._outputs.append(output)
        self._loop.watch(report, READ, lambda _events: self._reported(report))
        if self.limit_s is not None:
            self._deadline = self._loop.after(self.limit_s, self._time_out)

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)
        if self._is_started:
            subscriber.started(self)
        if self.end is not None:
            subscriber.ended(self)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)
        self.resume()

    def resume(self) -> None:
        """Read on, if nobody is full any more."""
        if self._is_paused and not any(one.is_full for one in self._subscribers):
            self._is_paused = False
            self._quiet_since = monotonic()
            for output in self._outputs:
                output.resume()

    def signal(self, number: int) -> None:
        """Signal the process group. Errors: RpcError not_found once the process has ended."""
        if self._status is not None or self._is_zombie:
            raise RpcError("not_found", f"process with pid {self.pid} has ended")
        # It is not reaped yet, so the number can't belong to anybody else.
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            # Between the fork and its setsid.
            os.kill(self.pid, number)

    @property
    def _is_zombie(self) -> bool:
        """It has ended, and we are about to learn it."""
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PIDFD, self._pidfd, look) is not None

    def _reported(self, report: int) -> None:
        """The child has run the command, or says why it could not."""
        try:
            text = os.read(report, MAX_REPORT_BYTES)
        except BlockingIOError:
            return
        self._loop.unwatch(report)
        os.close(report)
        if text:
            self._fail(explain(self.launch, text))
            return
        self._is_started = True
        for subscriber in list(self._subscribers):
            subscriber.started(self)
        if not self._is_paused:
            for output in self._outputs:
                output.resume()
        self._loop.watch(self._pidfd, READ, self._exited)

    def _fail(self, error: RpcError) -> None:
        os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        self._status = -1
        self._cancel_deadline()
        self._close_input()
        for output in self._outputs:
            output.close()
        self._outputs.clear()
        subscribers, self._subscribers = self._subscribers, []
        for subscriber in subscribers:
            subscriber.failed(error)
        self._gone(self)

    def _time_out(self) -> None:
        if self._status is None:
            self.timed_out = True
            self.signal(SIGKILL)

    def _exited(self, _events: int) -> None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        self._status = status
        self._cancel_deadline()
        for output in self._outputs:
            output.note_owed()
        self._grace_ends = monotonic() + GRACE_S
        self._quiet_looks = 0
        self._check_end()

    def _output(self, output: Output, data: bytes) -> None:
        self._quiet_looks = 0
        if not self._subscribers:
            return
        text = data_event(output.name, data)
        for subscriber in list(self._subscribers):
            subscriber.output(text)
        if any(one.is_full for one in self._subscribers):
            self._is_paused = True
            for each in self._outputs:
                each.pause()

    def _closed(self, output: Output) -> None:
        self._outputs.remove(output)
        if self._status is not None and not self._outputs and self.end is None:
            self._finish()

    def _check_end(self) -> None:
        """After the exit: finish, or look again when that may have become right."""
        if self.end is not None:
            return
        is_owed = self._is_paused or any(output.owed for output in self._outputs)
        is_over = self._quiet_looks >= QUIET_LOOKS or monotonic() >= self._grace_ends
        if not self._outputs or (not is_owed and is_over):
            self._finish()
        else:
            self._quiet_looks += 1
            self._loop.after(LOOK_S, self._check_end)

    def _finish(self) -> None:
        assert self._status is not None
        self.end = end_event(self._status)
        self._close_input()
        subscribers, self._subscribers = self._subscribers, []
        for subscriber in subscribers:
            subscriber.ended(self)
        self.resume()
        self._gone(self)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _close_input(self) -> None:
        self.terminal_fd = -1
        if self.input is not None:
            self.input.close()
