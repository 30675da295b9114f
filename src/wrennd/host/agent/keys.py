"""What was answered to calls with an idempotency key: the same call gets the same answer. No I/O.

Kept for KEPT_S seconds after the answer, the newest MAX_KEYS of them.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wrennd.core.errors import InvalidInput

KEPT_S = 600.0
MAX_KEYS = 4096
MAX_KEY_LENGTH = 256


@dataclass
class _Entry:
    content: bytes
    task: "asyncio.Task[Any]"
    ended: float | None = None


class Keys:
    """Keys and their calls, in the order in which they came. For the loop's thread only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def find(self, key: str, content: bytes) -> "asyncio.Task[Any] | None":
        """The call that had this key; None when there is none, or no key.

        Errors: InvalidInput when that was another call, or the key is too long.
        """
        if len(key) > MAX_KEY_LENGTH:
            raise InvalidInput(f"an idempotency key has {MAX_KEY_LENGTH} characters at most")
        self._forget()
        found = self._entries.get(key) if key else None
        if found is None:
            return None
        if found.content != content:
            raise InvalidInput(
                f"the idempotency key {key!r} was used for another call",
                hint="a key is for one call and its repetitions",
            )
        return found.task

    def add(self, key: str, content: bytes, task: "asyncio.Task[Any]") -> None:
        """Keep the answer of a call. One that fails has changed nothing: its key is free then."""
        if not key:
            return
        entry = _Entry(content, task)
        self._entries[key] = entry

        def ended(done: "asyncio.Task[Any]") -> None:
            if self._entries.get(key) is not entry:
                return
            if done.cancelled() or done.exception() is not None:
                del self._entries[key]
            else:
                entry.ended = self._clock()

        task.add_done_callback(ended)

    def _forget(self) -> None:
        """The old ones, and the oldest of too many; never those that still run."""
        now = self._clock()
        surplus = len(self._entries) - MAX_KEYS
        for key, entry in list(self._entries.items()):
            if entry.ended is None:
                continue
            if surplus > 0 or now - entry.ended > KEPT_S:
                del self._entries[key]
                surplus -= 1
