"""One running sandbox of this machine, and a command in it: `core/sandboxes.py` for the CLI."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wrennd.core.deadline import Deadline
from wrennd.core.errors import Error, NotFound, VmmFailed, WrongState
from wrennd.core.model import Command, TerminalSize
from wrennd.core.sandboxes import Exit, Output, Running
from wrennd.core.states import State
from wrennd.host import record
from wrennd.host.envd_client import Started
from wrennd.host.machine import Machine
from wrennd.transfer import download, upload
from wrennd.transfer.guest import Found


class LocalSandbox:
    """A booted or adopted machine, as commands see it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def id(self) -> str:
        return self._machine.spec.id

    @contextmanager
    def start(self, command: Command) -> Iterator[Running]:
        with self._machine.envd.start(command) as started:
            yield LocalRunning(started, self._machine)

    def look(self, path: str, *, user: str) -> Found:
        found = self._machine.envd.files.stat(path, user=user)
        return Found(path=found.path, kind=found.kind, mode=found.mode)

    def upload(self, source: Path, destination: str, *, user: str) -> None:
        upload.upload(self, source, destination, user=user)

    def copy_in(self, source: Path, destination: str, *, user: str) -> None:
        upload.copy_in(self, source, destination, user=user)

    def copy_out(self, source: str, destination: Path, *, user: str) -> None:
        download.copy_out(self, source, destination, user=user)


class LocalRunning:
    """A command in a machine."""

    def __init__(self, started: Started, machine: Machine) -> None:
        self._started = started
        self._machine = machine

    def events(self) -> Iterator[Output | Exit]:
        """Ends when the VMM does, with what it and the console said last."""
        try:
            yield from self._started.events()
        except VmmFailed as error:
            raise self._how_it_ended() from error

    def _how_it_ended(self) -> Error:
        """The VMM is gone: destroyed, paused by another command, or by itself."""
        vm = self._machine.vm
        vm.process.wait(Deadline.after(1))
        try:
            state = record.load(self._machine.journal.paths).state
        except (NotFound, WrongState):
            state = State.DESTROYING
        if state in (State.DESTROYING, State.PAUSING, State.PAUSED):
            became = "destroyed" if state is State.DESTROYING else "paused"
            return WrongState(f"the sandbox was {became} under its command")
        return VmmFailed(
            f"the sandbox ended under its command: {vm.describe_end()}",
            hint=vm.console_hint(),
        )

    def send_stdin(self, data: bytes) -> bool:
        return self._started.send_stdin(data)

    def close_stdin(self) -> None:
        self._started.close_stdin()

    def resize(self, size: TerminalSize) -> None:
        self._started.resize(size)

    def kill(self) -> None:
        with contextlib.suppress(NotFound):
            self._started.signal(kill=True)
