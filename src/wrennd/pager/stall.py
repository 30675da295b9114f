"""Whether a worker is stuck: a fault that it has read waits, and it gets nothing done."""

import time
from collections.abc import Callable

from wrennd.pager.board import Board

LOOKS = 6  # so many in a row


class Stall:
    """Looks at the board. Looks are counted, not seconds: a pager that was frozen together with
    its host, and looks again hours later, has not stalled."""

    def __init__(
        self, board: Board, after_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.interval_s = after_s / LOOKS
        self._board = board
        self._clock = clock
        self._start_again()

    def _start_again(self) -> None:
        self._progress = self._board.progress()
        self._looks = 0
        self._next_look = self._clock() + self.interval_s

    def is_seen(self) -> bool:
        """True once for each stall. To be called every `interval_s` seconds, or more often."""
        if not self._board.pending or self._board.progress() != self._progress:
            self._start_again()
        elif self._clock() >= self._next_look:
            self._next_look = self._clock() + self.interval_s
            self._looks += 1
        if self._looks < LOOKS:
            return False
        self._start_again()
        return True
