"""Progress of long work, on stderr: what is being done now, and for how long."""

import sys
import time


class Progress:
    """A callable that prints one line for each step, with the seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"[{time.monotonic() - self._start:5.1f} s] {text}", file=sys.stderr, flush=True)
