"""Long work in one thread: a generator that runs in slices, with everybody else served between.

A step is what happens between two yields, and must be short. A job that yields WAIT stands still
until it is resumed, which is how it waits for a client that reads slowly.
"""

from __future__ import annotations

from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from wrennd.envd.loop import Loop

    Steps = Generator[object, None, None]

SLICE_S = 0.005
WAIT = object()


class Job:
    """Runs the steps. The first slice runs at once, so that short work is done on return.

    The generator answers its caller itself, also for errors; what it raises is a bug.
    """

    def __init__(self, loop: Loop, steps: Steps) -> None:
        self._loop = loop
        self._steps = steps
        self._is_running = False
        self._is_queued = False
        self.resume()

    def resume(self) -> None:
        """Go on after a WAIT; nothing happens when the job isn't waiting."""
        if not (self._is_running or self._is_queued):
            self._slice()

    def close(self) -> None:
        """Give up: what the generator holds is let go by its own `finally`."""
        if self._is_running:
            # It is what called us, so it can't be closed here.
            self._loop.soon(self.close)
        else:
            self._steps.close()

    def _slice(self) -> None:
        self._is_queued = False
        self._is_running = True
        until = monotonic() + SLICE_S
        try:
            for step in self._steps:
                if step is WAIT:
                    return
                if monotonic() >= until:
                    self._is_queued = True
                    self._loop.soon(self._slice)
                    return
        finally:
            self._is_running = False
