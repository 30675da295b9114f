"""The event loop: file descriptors and timers, one thread.

A callback must bear being called without cause: a descriptor's number may be taken again by a
new file between the poll and the call. An exception in one is printed and goes no further: one
bad connection must not end the agent.
"""

from __future__ import annotations

import heapq
import sys
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, epoll
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[], None]
    Ready = Callable[[int], None]

READ = EPOLLIN
WRITE = EPOLLOUT
# Reported whether asked for or not: both directions are closed, or the file is in error.
BROKEN = EPOLLHUP | EPOLLERR


class Timer:
    """A callback that is still to come. `cancel` may be called at any time, and again."""

    __slots__ = ("at", "callback")

    def __init__(self, at: float, callback: Callback | None) -> None:
        self.at = at
        self.callback = callback

    def __lt__(self, other: Timer) -> bool:
        return self.at < other.at

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """Owns the epoll descriptor, not the descriptors that it watches."""

    def __init__(self) -> None:
        self._epoll = epoll()
        self._watched: dict[int, tuple[int, Ready]] = {}
        self._timers: list[Timer] = []
        self._soon: list[Callback] = []
        self._running = True

    def watch(self, fd: int, events: int, callback: Ready) -> None:
        """Call back with the events whenever `fd` is ready (READ, WRITE, or both) or BROKEN."""
        known = self._watched.get(fd)
        self._watched[fd] = (events, callback)
        if known is None:
            self._epoll.register(fd, events)
        elif known[0] != events:
            self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Before `fd` is closed; nothing happens when it is not watched."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, callback: Callback) -> Timer:
        timer = Timer(monotonic() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def soon(self, callback: Callback) -> None:
        """Call back before the next wait, but not from within this call."""
        self._soon.append(callback)

    def run(self) -> None:
        while self._running:
            for fd, events in self._epoll.poll(self._timeout()):
                watched = self._watched.get(fd)
                if watched is not None:
                    self._call(watched[1], events)
            self._run_timers()
            callbacks, self._soon = self._soon, []
            for callback in callbacks:
                self._call(callback)

    def stop(self) -> None:
        self._running = False

    def close(self) -> None:
        self._epoll.close()

    def _timeout(self) -> float | None:
        if self._soon:
            return 0
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0].at - monotonic())

    def _run_timers(self) -> None:
        now = monotonic()
        while self._timers and self._timers[0].at <= now:
            callback = heapq.heappop(self._timers).callback
            if callback is not None:
                self._call(callback)

    def _call(self, callback: Callable[..., None], *args: int) -> None:
        try:
            callback(*args)
        except Exception:  # noqa: BLE001 - the outermost frame of every event
            sys.excepthook(*sys.exc_info())
