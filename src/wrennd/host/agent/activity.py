"""When each sandbox was used last, and what uses it now. In memory; from any thread."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def now_ms() -> int:
    return round(time.time() * 1000)


class Activity:
    """Uses of sandboxes. One that was never used here counts from this object's beginning: an
    agent that was started anew must not take what it has not seen for idle.

    clock: seconds, that nobody sets: a host whose time is corrected is not idle.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._clock = clock
        self._wall_ms = wall_ms
        self._began = clock()
        # Guards both.
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._uses: dict[str, int] = {}

    def touch(self, sandbox_id: str) -> None:
        with self._lock:
            self._last[sandbox_id] = self._clock()

    @contextmanager
    def using(self, sandbox_id: str) -> Iterator[None]:
        """It is in use for the length of the block."""
        with self._lock:
            self._uses[sandbox_id] = self._uses.get(sandbox_id, 0) + 1
            self._last[sandbox_id] = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._uses[sandbox_id] -= 1
                if not self._uses[sandbox_id]:
                    del self._uses[sandbox_id]
                self._last[sandbox_id] = self._clock()

    def last_ms(self, sandbox_id: str) -> int:
        """Of the last use (since 1970); now, while it is in use."""
        with self._lock:
            if sandbox_id in self._uses:
                return self._wall_ms()
            last = self._last.get(sandbox_id, self._began)
        return self._wall_ms() - round((self._clock() - last) * 1000)

    def forget(self, sandbox_id: str) -> None:
        with self._lock:
            self._last.pop(sandbox_id, None)
