"""How long each phase of an operation took, in milliseconds, in the order they ended."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings:
    """The phases of one operation. Not shared between threads.

    `ended_at`: when each phase ended last, on the monotonic clock (seconds). `notes`: what else is
    to be said of it, by name, such as which of two ways was taken.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._phases: dict[str, float] = {}
        self.ended_at: dict[str, float] = {}
        self.notes: dict[str, str] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block as `name`; a block that raises is recorded too."""
        start = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            self._phases[name] = self._phases.get(name, 0.0) + (end - start) * 1000
            self.ended_at[name] = end

    def add(self, name: str, ms: float) -> None:
        """A phase that was measured elsewhere."""
        self._phases[name] = self._phases.get(name, 0.0) + ms

    @property
    def total_ms(self) -> float:
        return (time.monotonic() - self._started) * 1000

    def to_json(self) -> dict[str, object]:
        timings = {"timings_ms": self.phases_ms, "total_ms": round(self.total_ms, 1)}
        return {**self.notes, **timings}

    @property
    def phases_ms(self) -> dict[str, float]:
        """Name to milliseconds, rounded to a tenth."""
        return {name: round(ms, 1) for name, ms in self._phases.items()}
