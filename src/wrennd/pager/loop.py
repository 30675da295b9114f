"""poll(2): which descriptors the keeper waits for, and what it does when they can be read."""

import select
from collections.abc import Callable


class Loop:
    """Descriptors and their handlers. Owns no descriptor."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], object]] = {}

    def watch(self, fd: int, handler: Callable[[], object]) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Before it is closed. Nothing happens when it is not watched."""
        if self._handlers.pop(fd, None):
            self._poll.unregister(fd)

    def turn(self, timeout_s: float | None) -> None:
        """Wait until one or more can be read, and call their handlers."""
        for fd, _ in self._poll.poll(None if timeout_s is None else timeout_s * 1000):
            if fd in self._handlers:  # an earlier handler may have dropped it
                self._handlers[fd]()
