"""A point in time by which something must be done: made once, passed down, never extended."""

import time
from dataclasses import dataclass
from typing import Self

from wrennd.core.errors import DeadlineExceeded


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock (seconds)."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        return cls(time.monotonic() + seconds)

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative: fits select, socket and wait timeouts."""
        return max(0.0, self.at - time.monotonic())

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.at

    def check(self, what: str) -> None:
        """Raise DeadlineExceeded, naming `what`, when the time is over."""
        if self.is_over:
            raise DeadlineExceeded(f"{what} took too long")
