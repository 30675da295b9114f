"""Keep the parts of a server running until somebody ends it: start, watch, start again, stop.

One thread that waits for pidfds and for signals, in one select. SIGTERM, SIGINT and SIGHUP end it;
sandboxes are no child of any part and are left alone. A second signal while it stops kills what
is still there.
"""

import contextlib
import logging
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded, Error
from wrennd.linux.process import Process
from wrennd.server.parts import Part

log = logging.getLogger(__name__)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
# A part that has run for so long starts anew at once.
SETTLED_S = 60.0
LOOK_S = 0.05
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(Exception):
    """A signal came that ends us."""


class Signals:
    """The ones that end us, as something that a select can wait for."""

    def __init__(self, wake: socket.socket) -> None:
        self._wake = wake

    def wait(self, fds: Sequence[int], seconds: float) -> None:
        """Returns when one of `fds` is readable or the time is over. Errors: Stopped."""
        wake = self._wake.fileno()
        if wake in select.select([wake, *fds], [], [], seconds)[0]:
            self._wake.recv(64)
            raise Stopped


@contextmanager
def signals() -> Iterator[Signals]:
    """Until the block ends, a signal is what `Signals.wait` raises, and nothing else."""
    here, there = socket.socketpair()
    with here, there, contextlib.ExitStack() as held:
        there.setblocking(False)
        held.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(there.fileno()))
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                held.callback(signal.signal, number, signal.signal(number, _noted))
        yield Signals(here)


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has been written to: that is all."""


class Supervisor:
    """Parts in the order in which they are started; they are stopped in the opposite one."""

    def __init__(self, parts: Sequence[Part], came: Signals) -> None:
        self._parts = {part.name: part for part in parts}
        self._came = came
        self._running: dict[str, tuple[Process, float]] = {}
        self._due: dict[str, float] = {}
        self._pauses: dict[str, float] = {}

    def start(self, is_ready: Callable[[], bool], deadline: Deadline) -> None:
        """Start all of them and wait until they are ready.

        Errors: Stopped; Error when one ends meanwhile; DeadlineExceeded.
        """
        for name in self._parts:
            self._spawn(name)
        while not is_ready():
            for name, (child, _) in self._running.items():
                if child.has_ended:
                    raise Error(
                        f"the {name} ended with {child.exit_code} before it was ready",
                        hint="what it wrote is above",
                    )
            if deadline.is_over:
                raise DeadlineExceeded("the server was not ready in time")
            self._came.wait(self._pidfds(), LOOK_S)

    def run(self) -> None:
        """Start again what ends. Returns when a signal came."""
        with contextlib.suppress(Stopped):
            while True:
                self._came.wait(self._pidfds(), self._next_due_s())
                self._mourn()
                for name in [name for name, at in self._due.items() if at <= time.monotonic()]:
                    del self._due[name]
                    self._spawn(name)

    def stop(self) -> None:
        """All of them; nothing happens to those that have ended. May be called twice."""
        for name in reversed(self._parts):
            held = self._running.pop(name, None)
            if held is not None:
                self._stop(self._parts[name], held[0])

    def _stop(self, part: Part, child: Process) -> None:
        child.signal(signal.SIGTERM)
        deadline = Deadline.after(part.stop_s)
        with child:  # at its end it is killed, if it is still there
            try:
                while not child.has_ended and not deadline.is_over:
                    self._came.wait([child.pidfd], deadline.remaining_s)
            except Stopped:
                log.warning("%s: killed, as we were asked twice", part.name)
                return
            if not child.has_ended:
                log.error("%s: killed, it did not end within %g s", part.name, part.stop_s)

    def _spawn(self, name: str) -> None:
        self._running[name] = self._parts[name].spawn(), time.monotonic()

    def _mourn(self) -> None:
        for name, (child, since) in list(self._running.items()):
            if not child.has_ended:
                continue
            del self._running[name]
            child.close()
            ran_s = time.monotonic() - since
            before = 0.0 if ran_s > SETTLED_S else self._pauses.get(name, 0.0)
            pause = min(max(FIRST_PAUSE_S, before * 2), LONGEST_PAUSE_S)
            self._pauses[name] = pause
            self._due[name] = time.monotonic() + pause
            log.error(
                "%s: ended with %s after %.0f s, is started again in %g s",
                name,
                child.exit_code,
                ran_s,
                pause,
            )

    def _pidfds(self) -> list[int]:
        return [child.pidfd for child, _ in self._running.values()]

    def _next_due_s(self) -> float:
        """How long there is nothing to start. Errors: none."""
        due = min(self._due.values(), default=time.monotonic() + LONGEST_PAUSE_S)
        return max(0.0, due - time.monotonic())
