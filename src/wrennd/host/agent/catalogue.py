"""The records of all sandboxes, as they lie on the disk: read again only when they were written.

A record is written under another name and renamed, so a new one is a new file. May be used from
any thread.
"""

import contextlib
import os
import threading
from dataclasses import dataclass

from wrennd.core.errors import Error, NotFound
from wrennd.core.states import State
from wrennd.host import reclaim, record
from wrennd.host.record import Record
from wrennd.storage.layout import Layout

# In these a sandbox has a VM, or is about to have one.
LIVE = frozenset({State.STARTING, State.RUNNING, State.PAUSING, State.SNAPSHOTTING, State.RESUMING})


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A sandbox whose record says nothing that we understand."""

    id: str
    why: str


Seen = Record | Unreadable
_Stamp = tuple[int, int, int]


class Catalogue:
    """All sandboxes of one installation."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        # Guards _kept.
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[_Stamp, Seen]] = {}

    def all(self) -> list[Seen]:
        """Oldest first. One whose directory is there before its record is, is not there yet."""
        ids = reclaim.ids(self._layout)
        with self._lock:
            for gone in self._kept.keys() - ids:
                del self._kept[gone]
        found = []
        for sandbox_id in ids:
            with contextlib.suppress(NotFound):
                found.append(self.get(sandbox_id))
        return sorted(found, key=_age)

    def records(self) -> list[Record]:
        return [one for one in self.all() if isinstance(one, Record)]

    def live(self) -> list[Record]:
        return [one for one in self.records() if one.state in LIVE]

    def get(self, sandbox_id: str) -> Seen:
        """Errors: NotFound, InvalidInput."""
        paths = self._layout.sandbox(sandbox_id)
        try:
            stat = os.stat(paths.record)  # noqa: PTH116 - called a thousand times for a list
        except (FileNotFoundError, NotADirectoryError):
            raise record.not_found(sandbox_id) from None
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        with self._lock:
            kept = self._kept.get(sandbox_id)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        seen = self._read(sandbox_id)
        with self._lock:
            self._kept[sandbox_id] = (stamp, seen)
        return seen

    def _read(self, sandbox_id: str) -> Seen:
        try:
            return record.load(self._layout.sandbox(sandbox_id))
        except NotFound:
            raise
        except Error as error:
            return Unreadable(id=sandbox_id, why=str(error))


def _age(seen: Seen) -> tuple[str, str]:
    return (seen.created if isinstance(seen, Record) else "", seen.id)
