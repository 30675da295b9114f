"""Files of a guest to the host. What comes is not trusted: it is written to a place of its own.

A tree comes as a tar stream of the busybox that every image carries in `/usr/lib/wrenn`; it is
read as `user`, so what he may not read is missing, and that is said. On the host everything
belongs to the caller. A tree appears under its name only when it is complete.
"""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wrennd.core.errors import AlreadyExists, GuestFailed, InvalidInput
from wrennd.core.model import Command
from wrennd.core.sandboxes import Exit, Output, Running
from wrennd.linux.tree import Tree, UnsafePath
from wrennd.transfer.guest import BUSYBOX, Guest
from wrennd.transfer.tar_stream import Kind, Member, Read, TarBroken, TarStream

CHUNK_BYTES = 1 << 20


def copy_out(guest: Guest, source: str, destination: Path, *, user: str) -> None:
    """As cp -r: a directory that is there gets the source under its own name.

    A file that is there is replaced, a directory is not. Errors: NotFound, InvalidInput (also what
    the user may not read), AlreadyExists, GuestFailed.
    """
    found = guest.look(source, user=user)
    target = destination / _own_name(found.path) if destination.is_dir() else destination
    try:
        if found.is_directory:
            _copy_tree(guest, source, target, user)
        elif found.is_file:
            _copy_file(guest, source, target, user, found.mode)
        else:
            raise InvalidInput(f"{source!r} in the sandbox is neither a file nor a directory")
    except OSError as error:
        raise InvalidInput(f"{target} can't be written: {error.strerror or error}") from error


def _own_name(path: str) -> str:
    name = path.rstrip("/").rpartition("/")[2]
    if name in ("", ".", ".."):
        raise InvalidInput("the root of a sandbox has no name of its own", hint="name the copy")
    return name


def _copy_file(guest: Guest, source: str, target: Path, user: str, mode: int) -> None:
    """Not by the agent's own /files: that reads what the user may not."""
    fd, made = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    with contextlib.ExitStack() as held:
        held.callback(Path(made).unlink, missing_ok=True)
        with os.fdopen(fd, "wb") as file, _output_of(guest, user, "cat", "--", source) as read:
            while data := read(CHUNK_BYTES):
                file.write(data)
            os.fchmod(file.fileno(), stat.S_IMODE(mode) & 0o777)
        Path(made).rename(target)


def _copy_tree(guest: Guest, source: str, target: Path, user: str) -> None:
    if os.path.lexists(target):
        raise AlreadyExists(
            f"{target} is there already", hint="remove it first, or name another place"
        )
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    with contextlib.ExitStack() as held:
        held.callback(shutil.rmtree, made, ignore_errors=True)
        command = ("tar", "-c", "-f", "-", "-C", source, ".")
        try:
            with _output_of(guest, user, *command) as read, Tree(made) as tree:
                stream = TarStream(read)
                for member in stream.members():
                    _write(tree, member, stream)
                tree.finish()
        except (TarBroken, UnsafePath) as error:
            raise GuestFailed(f"the guest sent no usable archive: {error}") from error
        made.rename(target)


def _write(tree: Tree, member: Member, stream: TarStream) -> None:
    """Sockets, devices and the like are passed over: they mean nothing on another machine."""
    match member.kind:
        case Kind.DIRECTORY:
            tree.make_directory(member.path, member.mode)
        case Kind.FILE:
            tree.write_file(member.path, member.mode, stream.content())
        case Kind.SYMLINK:
            tree.make_symlink(member.path, member.target)
        case Kind.HARD_LINK:
            tree.make_link(member.path, member.target)


@contextmanager
def _output_of(guest: Guest, user: str, *words: str) -> Iterator[Read]:
    """What a tool of the guest's busybox writes. Errors: InvalidInput with its own words."""
    with guest.start(Command(argv=(BUSYBOX, *words), user=user)) as started:
        output = _Stdout(started)
        try:
            yield output.read
        except TarBroken:
            output.finish()  # the tool's own words say more than that it broke off
            raise
        output.finish()


class _Stdout:
    """What a command writes, to be read; its stderr and exit code are looked at in the end."""

    def __init__(self, started: Running) -> None:
        self._events = started.events()
        self._buffer = b""
        self._said = b""
        self._code: int | None = None

    def read(self, count: int) -> bytes:
        while not self._buffer and self._code is None:
            self._take()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def finish(self) -> None:
        """Errors: InvalidInput."""
        while self._code is None:
            self._buffer = b""
            self._take()
        if self._code != 0:
            words = self._said.decode(errors="replace").strip()
            shown = "".join(c if c.isprintable() else " " for c in words[-500:])
            raise InvalidInput(
                f"not everything could be read in the sandbox: {shown}",
                hint="nothing was copied; --user root reads everything",
            )

    def _take(self) -> None:
        event = next(self._events)
        if isinstance(event, Exit):
            self._code = event.code
        elif isinstance(event, Output) and event.stream == "stdout":
            self._buffer += event.data
        elif len(self._said) < 1 << 16:
            self._said += event.data
