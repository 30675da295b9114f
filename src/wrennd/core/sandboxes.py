"""The seam between a command and the sandboxes it uses, wherever they run.

Implemented by `host` (this machine, no server) and by `client` (a server), so that no command knows
the difference.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from wrennd.core.errors import Error
from wrennd.core.model import Command, SandboxRequest, TerminalSize
from wrennd.core.states import State
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

    def kill(self) -> None:
        """End the command; nothing happens when it has ended."""


class Sandbox(Protocol):
    """A running sandbox, for the length of a block."""

    @property
    def id(self) -> str: ...

    def start(self, command: Command) -> AbstractContextManager[Running]: ...

    def upload(self, source: Path, destination: str, *, user: str) -> None:
        """Copy a file or a directory's tree into the sandbox, owned by `user`, modes kept."""

    def copy_in(self, source: Path, destination: str, *, user: str) -> None:
        """As `upload`, but into a directory that is there, under its own name."""

    def copy_out(self, source: str, destination: Path, *, user: str) -> None:
        """Copy a file or a directory's tree out of the sandbox: what `user` may read there."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One sandbox in a list.

    created: ISO 8601. address: where the host reaches it, empty while it does not run.
    generation: how often it was snapshotted. is_kept: it outlives the command that made it.
    error: why it is in the state `error`.
    """

    id: str
    template: str
    state: State
    tier: str
    vcpus: int
    mem_mib: int
    created: str
    address: str
    generation: int
    is_kept: bool
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Forked:
    """What became of one child of a fork.

    error: why there is none. unique: what it has of its own, a word or two each; shared: what it
    has in common with its source, a clause each.
    """

    id: str
    error: Error | None = None
    unique: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    timings: Timings = field(default_factory=Timings)


class Sandboxes(Protocol):
    """A place where sandboxes are made.

    Where an id is asked for, its first characters are enough, if no other begins with them.
    Errors of all that take one: NotFound, InvalidInput (not an id, or ambiguous).
    """

    def temporary(
        self, wanted: SandboxRequest, timings: Timings
    ) -> AbstractContextManager[Sandbox]:
        """A new sandbox, ready for commands; destroyed at the end of the block."""

    def create(self, wanted: SandboxRequest, timings: Timings) -> str:
        """A new sandbox, ready for commands, that stays until it is killed; its id, which a
        server may choose itself.

        May be called from several threads.
        """

    def connect(self, sandbox_id: str) -> AbstractContextManager[Sandbox]:
        """One that runs, to do something in it. Errors: WrongState."""

    def list(self) -> "list[Listed]":
        """All of them, oldest first."""

    def pause(self, sandbox_id: str, timings: Timings) -> None:
        """Keep its memory and disk, and free what it has on the host. If it fails, it goes on.

        Errors: WrongState, GuestFailed, NoCapacity, VmmFailed.
        """

    def resume(
        self, sandbox_id: str, timings: Timings, *, cold: bool = False, discard: bool = False
    ) -> None:
        """Let it go on where it was paused. If it fails, it is as it was.

        cold: boot it from its disk instead. discard: also one in error, whose work since its last
        snapshot is lost. Errors: WrongState, SnapshotBroken, SnapshotIncompatible, NoCapacity.
        """

    def fork(self, sandbox_id: str, count: int, timings: Timings) -> tuple[Forked, ...]:
        """New sandboxes that go on where this one is, which goes on, too, or stays paused.

        Each has its own end. Errors: InvalidInput for a count that is not 1 to MAX_CHILDREN;
        WrongState, and as of `pause`, when there are none at all.
        """

    def kill(self, sandbox_id: str, *, timings: Timings | None = None) -> None:
        """Destroy one, running or not, with all that belongs to it alone."""


@dataclass(frozen=True, kw_only=True)
class ListedTemplate:
    """One snapshot template in a list. disk_bytes: what it takes, own_bytes: what no other has."""

    name: str
    template: str
    sandbox: str
    tier: str
    vcpus: int
    mem_mib: int
    created: str
    disk_bytes: int
    own_bytes: int
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class ListedGeneration:
    """One generation of a snapshot's memory. pages: of it, still in use; data_pages, zero_pages:
    what it stored. shared_by: how many other snapshots have the same file.
    """

    build: str
    age_s: float
    disk_bytes: int
    pages: int
    data_pages: int
    zero_pages: int
    shared_by: int


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A snapshot in full: its pages, and its chain of generations, oldest first."""

    name: str
    vcpus: int
    mem_mib: int
    created: str
    pages: int
    zero_pages: int
    disk_bytes: int
    own_bytes: int
    generations: tuple[ListedGeneration, ...]


class Snapshots(Protocol):
    """Snapshot templates, and what paused sandboxes consist of.

    `what` is a template's name, or a sandbox's id or its beginning. Errors: NotFound, InvalidInput.
    """

    def create(
        self, sandbox_id: str, name: str, timings: Timings, *, ends_paused: bool = False
    ) -> None:
        """Freeze a sandbox, running or paused, into a template. One that ran goes on.

        Errors: AlreadyExists, and as of `Sandboxes.pause`.
        """

    def list(self) -> "list[ListedTemplate]": ...

    def remove(self, name: str) -> None:
        """Sandboxes that were made of it go on."""

    def show(self, what: str) -> Shown:
        """Errors: SnapshotBroken."""

    def verify(self, what: str) -> tuple[str, ...]:
        """Read all of it; what is wrong, a sentence each."""
