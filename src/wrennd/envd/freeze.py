"""POST /freeze and /unfreeze: users' processes stand still, and the disk has what they wrote.

The host freezes a guest before its snapshot and thaws it behind the first /init, so that no
process of a user ever runs with an old clock. Both waits are bounded: a process that hangs in the
kernel, or a disk that is slow, is told instead. The gate is shut from the one to the other.

A guest that was restored in between runs its hooks before it thaws. The host repeats /unfreeze
until it is answered, so a call that comes while they run waits for the same end.
"""

from __future__ import annotations

import os
from select import EPOLLPRI
from time import monotonic

# Needed behind a restore only, but then at once: what was imported by now is in the snapshot.
from wrennd.envd import identity  # noqa: F401
from wrennd.envd.hooks import Hooks
from wrennd.envd.http import parse_query
from wrennd.envd.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.connection import Exchange
    from wrennd.envd.gate import Gate
    from wrennd.envd.groups import Groups
    from wrennd.envd.init import Guest
    from wrennd.envd.jsontext import Json
    from wrennd.envd.loop import Loop, Timer

DEFAULT_WAIT_MS = 5000
MAX_WAIT_MS = 60_000
SIGKILL = 9
EVENTS_BYTES = 4096


class Freeze:
    """Handler of /freeze: answers when all is frozen and synced, or time is over."""

    def __init__(self, exchange: Exchange, loop: Loop, groups: Groups, gate: Gate) -> None:
        self._exchange = exchange
        self._loop = loop
        self._gate = gate
        self._groups = groups
        self._thawed: dict[int, str] = {}
        self._began = monotonic()
        self._sync = -1
        self._sync_pid = 0
        self._timer: Timer | None = None

    def data(self, data: bytes) -> None:
        pass

    def end(self) -> None:
        try:
            wait_ms = parse_wait(self._exchange.request.query)
        except ValueError as error:
            self._exchange.fail(400, str(error))
            return
        if not self._groups.paths():
            self._exchange.fail(501, "this guest has no cgroup2, so nothing can be frozen")
            return
        try:
            self._begin()
        except OSError as error:
            self._give_up(error)
            return
        self._timer = self._loop.after(wait_ms / 1000, self._finish)
        self._look()

    def _give_up(self, error: OSError) -> None:
        """Half a freeze is worse than none."""
        self.closed()
        try:
            self._groups.set_frozen(frozen=False)
        except OSError:
            # Groups that can't be written to: what the first error said holds for this one.
            pass
        self._gate.open()
        self._exchange.fail(500, f"the guest can't be frozen: {error}")

    def drained(self) -> None:
        pass

    def closed(self) -> None:
        """Frozen things stay so; who asked for it may ask again."""
        if self._timer is not None:
            self._timer.cancel()
        for fd in self._thawed:
            self._loop.unwatch(fd)
            os.close(fd)
        self._thawed.clear()

    def _begin(self) -> None:
        """Errors: OSError."""
        self._gate.shut()
        self._groups.set_frozen(frozen=True)
        for path in self._groups.paths():
            fd = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
            self._thawed[fd] = path
            self._loop.watch(fd, EPOLLPRI, lambda _events: self._look())
        # In a process of its own: nothing wakes a sync before it is done.
        self._sync_pid = fork_sync()
        self._sync = os.pidfd_open(self._sync_pid)
        self._loop.watch(self._sync, READ, lambda _events: self._synced())

    def _look(self) -> None:
        for fd in list(self._thawed):
            if b"frozen 1" in os.pread(fd, EVENTS_BYTES, 0):
                self._loop.unwatch(fd)
                os.close(fd)
                del self._thawed[fd]
        if not self._thawed and self._sync < 0:
            self._finish()

    def _synced(self) -> None:
        """Also when nobody waits for it any more: a child must be reaped."""
        if self._sync >= 0:
            self._loop.unwatch(self._sync)
            os.close(self._sync)
            self._sync = -1
            os.waitpid(self._sync_pid, 0)
            if not self._exchange.finished:
                self._look()

    def _finish(self) -> None:
        if self._exchange.finished:
            return
        reply = {
            "frozen": not self._thawed,
            "synced": self._sync < 0,
            "waitedMs": round((monotonic() - self._began) * 1000),
        }
        self.closed()
        self._exchange.reply_json(200, reply)


def parse_wait(query: str) -> int:
    """Milliseconds. Errors: ValueError."""
    text = parse_query(query).get("maxWaitMs", str(DEFAULT_WAIT_MS))
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise ValueError(f"maxWaitMs must be a number of milliseconds, not {text!r}")
    return min(int(text), MAX_WAIT_MS)


def fork_sync() -> int:
    """The pid of a child that writes everything to the disk, then ends. Errors: OSError."""
    pid = os.fork()
    if pid == 0:
        try:
            os.sync()
        finally:
            os._exit(0)
    return pid


class Thaw:
    """Lets users' processes go on, after the hooks if there was a restore; one for all calls."""

    def __init__(self, loop: Loop, groups: Groups, guest: Guest) -> None:
        self._loop = loop
        self._groups = groups
        self._guest = guest
        self._hooks: Hooks | None = None
        self._waiting: list[Unfreeze] = []

    def ask(self, caller: Unfreeze) -> None:
        """The caller is answered now, or when the hooks have run."""
        self._waiting.append(caller)
        if self._hooks is not None:
            return
        if not self._guest.gate.are_hooks_due:
            self._finish()
            return
        self._hooks = Hooks(self._loop, self._groups, self._guest, self._hooked)
        self._hooks.run()

    def forget(self, caller: Unfreeze) -> None:
        if caller in self._waiting:
            self._waiting.remove(caller)

    def _hooked(self, reports: list[Json]) -> None:
        self._hooks = None
        self._guest.gate.are_hooks_due = False
        self._guest.gate.reports = reports
        self._finish()

    def _finish(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            self._groups.set_frozen(frozen=False)
        except OSError as error:
            for caller in waiting:
                caller.fail(error)
            return
        self._guest.gate.open()
        for caller in waiting:
            caller.reply(self._guest.gate.reports)


class Unfreeze:
    """Handler of /unfreeze."""

    def __init__(self, exchange: Exchange, thaw: Thaw) -> None:
        self._exchange = exchange
        self._thaw = thaw

    def data(self, data: bytes) -> None:
        pass

    def end(self) -> None:
        self._thaw.ask(self)

    def reply(self, reports: list[Json] | None) -> None:
        if reports is None:
            self._exchange.reply(204, [])
        else:
            self._exchange.reply_json(200, {"hooks": reports})

    def fail(self, error: OSError) -> None:
        self._exchange.fail(500, f"the guest can't be thawed: {error}")

    def drained(self) -> None:
        pass

    def closed(self) -> None:
        self._thaw.forget(self)
