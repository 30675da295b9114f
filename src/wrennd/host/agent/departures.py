"""Sandboxes that ended without a call that asked for it, told for a day: who keeps a list of his
own learns why one is missing. Kept on the disk; from any thread.
"""

import json
import threading
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from wrennd.host.agent.activity import now_ms
from wrennd.linux import files

KEPT_MS = 24 * 3600 * 1000
MAX = 1000


@dataclass(frozen=True, kw_only=True)
class Departure:
    """cause: as a record's. unix_ms: when."""

    id: str
    cause: str
    unix_ms: int


class Departures:
    """Those of one installation. What is written down before the end stands for nothing until the
    sandbox is gone."""

    def __init__(
        self, path: Path, clock_ms: Callable[[], int] = now_ms, *, most: int = MAX
    ) -> None:
        self._path = path
        self._clock_ms = clock_ms
        self._most = most
        # Guards both the file and what is in it.
        self._lock = threading.Lock()
        self._kept = _read(path)

    def add(self, sandbox_id: str, cause: str) -> None:
        with self._lock:
            now = self._clock_ms()
            self._kept.pop(sandbox_id, None)
            self._kept[sandbox_id] = Departure(id=sandbox_id, cause=cause, unix_ms=now)
            young = [one for one in self._kept.values() if now - one.unix_ms < KEPT_MS]
            self._kept = {one.id: one for one in young[-self._most :]}
            self._write()

    def forget(self, sandbox_id: str) -> None:
        """It did not end, or a call has ended it."""
        with self._lock:
            if self._kept.pop(sandbox_id, None) is not None:
                self._write()

    def all(self, present: Collection[str]) -> list[Departure]:
        """Oldest first, without those that are there."""
        since = self._clock_ms() - KEPT_MS
        with self._lock:
            kept = list(self._kept.values())
        return [one for one in kept if one.id not in present and one.unix_ms > since]

    def _write(self) -> None:
        value = [asdict(one) for one in self._kept.values()]
        files.write_atomic(self._path, json.dumps(value).encode())


def _read(path: Path) -> dict[str, Departure]:
    """None of a file that is not there, or that a broken disk has left."""
    try:
        found = json.loads(path.read_bytes())
        return {one["id"]: Departure(**one) for one in found}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return {}
