"""One watched directory, or tree: what the kernel says about it, as the contract's events.

A tree is watched directory by directory. One that is made or moved in is watched as soon as it is
noticed, and what it holds by then is reported as created, once: names that the kernel reports as
well are told apart by the events still in its queue. Of watched subdirectories only their parents'
word counts, so that nothing is told twice.
"""

from __future__ import annotations

import errno
import os
import stat

from wrennd.envd import inotify
from wrennd.envd.inotify import Inotify

CREATE = "EVENT_TYPE_CREATE"
WRITE = "EVENT_TYPE_WRITE"
REMOVE = "EVENT_TYPE_REMOVE"
RENAME = "EVENT_TYPE_RENAME"
CHMOD = "EVENT_TYPE_CHMOD"

_WANTED = (
    inotify.IN_CREATE
    | inotify.IN_MODIFY
    | inotify.IN_ATTRIB
    | inotify.IN_DELETE
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVED_FROM
    | inotify.IN_MOVED_TO
    | inotify.IN_MOVE_SELF
)
_NAMES = (
    (inotify.IN_CREATE | inotify.IN_MOVED_TO, CREATE),
    (inotify.IN_MODIFY, WRITE),
    (inotify.IN_DELETE | inotify.IN_DELETE_SELF, REMOVE),
    (inotify.IN_MOVED_FROM | inotify.IN_MOVE_SELF, RENAME),
    (inotify.IN_ATTRIB, CHMOD),
)
_ARRIVED = inotify.IN_CREATE | inotify.IN_MOVED_TO
_LEFT = inotify.IN_DELETE | inotify.IN_MOVED_FROM
_BELOW = inotify.IN_ONLYDIR | inotify.IN_DONT_FOLLOW

Change = tuple[str, str]


class Watcher:
    """Owns its inotify instance. Changes are (name relative to the directory, event type).

    is_lossy: the kernel's queue or its watches ran out, so that changes were missed.
    Errors of the constructor: OSError.
    """

    def __init__(self, path: str, *, recursive: bool) -> None:
        self.path = path
        self.is_lossy = False
        self._recursive = recursive
        self._prefixes: dict[int, str] = {}
        # By prefix: names that a scan has reported, and the queue may report again.
        self._scanned: dict[str, set[str]] = {}
        self._inotify = Inotify()
        try:
            self._root = self._inotify.add(path, _WANTED | inotify.IN_ONLYDIR)
            self._prefixes[self._root] = ""
            if recursive:
                self._add_below("")
        except OSError:
            self.close()
            raise

    @property
    def fd(self) -> int:
        return self._inotify.fd

    def close(self) -> None:
        self._inotify.close()

    def read(self) -> list[Change] | None:
        """Some of the changes that are there now; None when the queue is empty."""
        events = self._inotify.read()
        if not events:
            self._scanned.clear()
            return None
        changes: list[Change] = []
        for event in events:
            self._take(event, changes)
        return changes

    def _take(self, event: inotify.Event, changes: list[Change]) -> None:
        if event.mask & inotify.IN_Q_OVERFLOW:
            self._overflow(changes)
            return
        prefix = self._prefixes.get(event.wd)
        if prefix is None:
            return
        if event.mask & inotify.IN_IGNORED:
            del self._prefixes[event.wd]
            return
        if not event.name:
            if event.wd == self._root:
                self._take_root(event.mask, changes)
            return
        name = prefix + event.name
        if self._is_known(prefix, event):
            return
        changes += [(name, kind) for bits, kind in _NAMES if event.mask & bits]
        if self._recursive and event.mask & inotify.IN_ISDIR:
            self._follow(name, event.mask, changes)

    def _take_root(self, mask: int, changes: list[Change]) -> None:
        """The directory itself; once it is moved its path means something else."""
        changes += [(".", kind) for bits, kind in _NAMES if mask & bits]
        if mask & inotify.IN_MOVE_SELF:
            self._drop("")

    def _is_known(self, prefix: str, event: inotify.Event) -> bool:
        scanned = self._scanned.get(prefix)
        if scanned is None or event.name not in scanned:
            return False
        if event.mask & (_ARRIVED | _LEFT):
            scanned.discard(event.name)
        return bool(event.mask & _ARRIVED)

    def _follow(self, name: str, mask: int, changes: list[Change]) -> None:
        """A directory came or went."""
        if mask & _LEFT:
            self._drop(f"{name}/")
        elif mask & _ARRIVED:
            try:
                self._add(name, changes)
            except OSError as error:
                self._tolerate(error)

    def _drop(self, prefix: str) -> None:
        for wd, known in list(self._prefixes.items()):
            if known.startswith(prefix):
                self._inotify.remove(wd)
                del self._prefixes[wd]

    def _add(self, name: str, changes: list[Change]) -> None:
        """Watch a directory of the tree, and report what is in it already."""
        wd = self._inotify.add(f"{self.path}/{name}", _WANTED | _BELOW)
        self._prefixes[wd] = f"{name}/"
        self._add_below(f"{name}/", changes)

    def _add_below(self, prefix: str, changes: list[Change] | None = None) -> None:
        """Watch the directories below one; report all that is there if `changes` is given.

        Errors: OSError ENOSPC when the kernel grants no more watches."""
        stack = [prefix]
        while stack:
            prefix = stack.pop()
            try:
                names = os.listdir(f"{self.path}/{prefix}")
            except OSError:
                continue
            if changes is not None:
                changes += [(prefix + name, CREATE) for name in names]
                self._scanned[prefix] = set(names)
            for name in names:
                wd = self._watch_directory(prefix + name)
                if wd >= 0 and wd not in self._prefixes:
                    self._prefixes[wd] = f"{prefix}{name}/"
                    stack.append(f"{prefix}{name}/")

    def _watch_directory(self, name: str) -> int:
        """-1 when it isn't one, or has gone. Errors: OSError ENOSPC."""
        path = f"{self.path}/{name}"
        try:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                return self._inotify.add(path, _WANTED | _BELOW)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
        return -1

    def _tolerate(self, error: OSError) -> None:
        """What has gone again is no loss; a subtree that can't be watched is one."""
        if error.errno == errno.ENOSPC:
            self.is_lossy = True

    def _overflow(self, changes: list[Change]) -> None:
        """Nobody knows what was missed, but new directories can be found again."""
        self.is_lossy = True
        changes.clear()
        if self._recursive and self._root in self._prefixes:
            self._prefixes = {self._root: ""}
            try:
                self._add_below("")
            except OSError as error:
                self._tolerate(error)
