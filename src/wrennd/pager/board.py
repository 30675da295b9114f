"""What keeper and worker share, and what outlives the worker: page states and counters.

One writer, the worker; there is never more than one. The keeper reads. Nothing here is locked:
each value is a byte or an aligned word.
"""

import mmap
from dataclasses import dataclass

# What is known of a page. Once REMOVED it stays so: it reads as zeros, whatever the file holds.
ABSENT, INSTALLED, REMOVED, TOUCHED = 0, 1, 2, 3

# Counters, by index.
READ, ANSWERED, DEFERRED, DEFERRED_SINCE, PREFETCHED, REMOVALS = range(6)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """A look at the board. `deferred_since_ns`: monotonic clock, 0 when nothing is put off."""

    faults_read: int
    faults_answered: int
    deferred: int
    deferred_since_ns: int
    prefetched: int
    removals: int
    installed: int
    touched: int
    removed: int


class Board:
    """Shared memory for a guest of `pages` pages; kept until the process ends."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.state = mmap.mmap(-1, pages)
        self._words = mmap.mmap(-1, mmap.PAGESIZE)
        self.counters = memoryview(self._words).cast("Q")

    def counts(self) -> Counts:
        states = self.state[:]
        count = self.counters
        return Counts(
            faults_read=count[READ],
            faults_answered=count[ANSWERED],
            deferred=count[DEFERRED],
            deferred_since_ns=count[DEFERRED_SINCE],
            prefetched=count[PREFETCHED],
            removals=count[REMOVALS],
            installed=states.count(INSTALLED) + states.count(TOUCHED),
            touched=states.count(TOUCHED),
            removed=states.count(REMOVED),
        )

    @property
    def pending(self) -> int:
        """Faults that were read and not answered yet."""
        return self.counters[READ] - self.counters[ANSWERED]

    def progress(self) -> tuple[int, ...]:
        """Cheap, and another one whenever the worker got anything done for its guest."""
        count = self.counters
        return (count[ANSWERED], count[PREFETCHED], count[REMOVALS])

    def touched_flags(self) -> bytes:
        """For each page 1 if the guest had to fault it in, else 0."""
        return self.state[:].translate(_TOUCHED_ONLY)


_TOUCHED_ONLY = bytes(int(value == TOUCHED) for value in range(256))
