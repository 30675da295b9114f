"""The seam between a command and the sandboxes it uses, wherever they run.

Implemented by `host` (this machine, no server); a client of a server will implement the same, so
that no command knows the difference.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from wrennd.core.model import Command, SandboxSpec, TerminalSize
from wrennd.core.timings import Timings


@dataclass(frozen=True)
class Output:
    """A piece of what the command wrote, split anywhere. A terminal's output is all stdout."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True)
class Exit:
    """The command's end: its exit code, or 128 plus the number of the signal that killed it."""

    code: int


class Running(Protocol):
    """A command that runs. Its methods may be called from another thread than `events`."""

    def events(self) -> Iterator[Output | Exit]:
        """Everything it writes, then exactly one Exit.

        Errors: CommandNotFound, CommandNotExecutable, InvalidInput (cwd, user) before the first
        event; VmmFailed or GuestFailed when the sandbox breaks under it.
        """

    def send_stdin(self, data: bytes) -> bool:
        """False when the command takes no more."""

    def close_stdin(self) -> None: ...

    def resize(self, size: TerminalSize) -> None:
        """Tell a command with a terminal that this has another size now."""


class Sandbox(Protocol):
    """A running sandbox; it lives as long as the block it was made in."""

    @property
    def id(self) -> str: ...

    def start(self, command: Command) -> AbstractContextManager[Running]: ...

    def upload(self, source: Path, destination: str, *, user: str) -> None:
        """Copy a file or a directory's tree into the sandbox, owned by `user`, modes kept."""


class Sandboxes(Protocol):
    """A place where sandboxes are made."""

    def create(self, spec: SandboxSpec, timings: Timings) -> AbstractContextManager[Sandbox]:
        """A new sandbox, ready for commands; destroyed at the end of the block."""
