"""Hooks: programs of the image's or the user's that run after a restore, before users' processes.

The executable files of /etc/wrenn/resume.d/, one after the other in the order of their names, as
root, each for a limited time. They are what can set right what a snapshot has copied: random
numbers of a program's own, leases, connections. One that fails is told and changes nothing else:
the guest must come back in any case.
"""

from __future__ import annotations

import os
import sys
from binascii import a2b_base64
from time import monotonic

from wrennd.envd import spawn, stdio
from wrennd.envd.process import Process
from wrennd.envd.users import ROOT, Account

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wrennd.envd.connect import RpcError
    from wrennd.envd.groups import Groups
    from wrennd.envd.init import Guest
    from wrennd.envd.jsontext import Json
    from wrennd.envd.loop import Loop

DIRECTORY = "etc/wrenn/resume.d"
LOG = "run/wrenn/resume.log"
LIMIT_S = 10.0
TOTAL_S = 60.0
# What is kept of one hook's output; the rest is read and dropped.
MAX_OUTPUT_BYTES = 64 << 10
ID_VARIABLE = "WRENN_SANDBOX_ID"
FORMER_ID_VARIABLE = "WRENN_FORMER_SANDBOX_ID"


def find(folder: str) -> list[str]:
    """The names of the hooks, in their order. Hidden files and editors' copies are none."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(name for name in names if _is_hook(folder, name))


def _is_hook(folder: str, name: str) -> bool:
    path = os.path.join(folder, name)
    is_ours = not name.startswith(".") and not name.endswith("~")
    return is_ours and os.path.isfile(path) and os.access(path, os.X_OK)


class Hooks:
    """One run of all hooks. `done` gets what became of each, once, maybe before `run` returns.

    limit_s, total_s: of one hook, and of all of them.
    """

    def __init__(
        self,
        loop: Loop,
        groups: Groups,
        guest: Guest,
        done: Callable[[list[Json]], None],
        limit_s: float = LIMIT_S,
        total_s: float = TOTAL_S,
    ) -> None:
        self._loop = loop
        self._groups = groups
        self._done = done
        self._folder = os.path.join(guest.root, DIRECTORY) if guest.root else ""
        self._log_path = os.path.join(guest.root, LOG)
        self._log = -1
        self._env = {
            "PATH": os.environ.get("PATH", spawn.DEFAULT_PATH),
            "HOME": "/root",
            "USER": ROOT,
            "LOGNAME": ROOT,
            ID_VARIABLE: guest.settings.sandbox_id,
            FORMER_ID_VARIABLE: guest.settings.former_id,
        }
        self._names: list[str] = []
        self._limit_s = limit_s
        self._ends_at = monotonic() + total_s
        self._reports: list[Json] = []

    def run(self) -> None:
        self._names = find(self._folder) if self._folder else []
        if self._names:
            self._open_log()
        self._next()

    def note(self, hook: _Hook, status: str) -> None:
        """One hook is over: the next."""
        self._reports.append({"name": hook.name, "status": status, "ms": hook.elapsed_ms})
        self.write(f"== {hook.name}: {status}\n".encode())
        if status != "exit status 0":
            sys.stderr.write(f"envd: the hook {hook.name} failed: {status}\n")
        # Not from within the process's own call.
        self._loop.soon(self._next)

    def write(self, data: bytes) -> None:
        """Into the log, as far as there is room for it."""
        if self._log >= 0:
            try:
                os.write(self._log, data)
            except OSError:
                os.close(self._log)
                self._log = -1

    def _next(self) -> None:
        if not self._names:
            if self._log >= 0:
                os.close(self._log)
                self._log = -1
            self._done(self._reports)
            return
        hook = _Hook(self._names.pop(0), self)
        left_s = self._ends_at - monotonic()
        if left_s <= 0:
            self.note(hook, "skipped")
            return
        try:
            self._start(hook, min(self._limit_s, left_s))
        except OSError as error:
            self.note(hook, f"can't be run: {error}")

    def _start(self, hook: _Hook, limit_s: float) -> None:
        """Errors: OSError, with nothing started."""
        launch = spawn.Launch(os.path.join(self._folder, hook.name), [], self._env)
        launch.account = Account(ROOT, 0, 0, "/root")
        launch.groups = [0]
        launch.cgroup_procs = self._groups.hooks()
        process = Process(self._loop, launch, None, lambda _process: None)
        process.limit_s = limit_s
        process.subscribe(hook)
        streams = stdio.pipes(has_stdin=False)
        try:
            process.start(streams)
        except OSError:
            streams.close()
            raise

    def _open_log(self) -> None:
        """Anew for each restore. Without it hooks run all the same."""
        try:
            os.makedirs(os.path.dirname(self._log_path), exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
            self._log = os.open(self._log_path, flags, 0o600)
        except OSError as error:
            sys.stderr.write(f"envd: there is no log of the hooks: {error}\n")


class _Hook:
    """The subscriber of one hook's process."""

    def __init__(self, name: str, run: Hooks) -> None:
        self.name = name
        self._run = run
        self._began = monotonic()
        self._room = MAX_OUTPUT_BYTES

    @property
    def elapsed_ms(self) -> int:
        return round((monotonic() - self._began) * 1000)

    @property
    def is_full(self) -> bool:
        return False

    def started(self, process: Process) -> None:
        pass

    def output(self, text: bytes) -> None:
        """text: as a client would get it, {"event":{"data":{NAME:BASE64}}}."""
        data = a2b_base64(text.rsplit(b'"', 2)[1])[: self._room]
        self._room -= len(data)
        if data:
            self._run.write(data)

    def ended(self, process: Process) -> None:
        assert process.end is not None
        self._run.note(self, "timed out" if process.timed_out else str(process.end["status"]))

    def failed(self, error: RpcError) -> None:
        self._run.note(self, f"can't be run: {error.message}")
