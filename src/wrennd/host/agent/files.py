"""Files of guests, in and out as streams; and their tree.

Synchronous; from any thread. A file is written beside its target and renamed over it, so that a
reader sees the old one or the new one, and a stream that breaks off has changed nothing.
"""

import contextlib
import posixpath
import secrets
from collections.abc import Iterator

from wrennd.core.errors import Error, InvalidInput, NotFound
from wrennd.gen.hostagent.hostagent_pb import FileEntry
from wrennd.host.agent import messages
from wrennd.host.agent.guests import Guests
from wrennd.host.agent.streams import Inlet, Outlet
from wrennd.host.envd_files import Entry, GuestFiles, Kind

CHUNK_BYTES = 256 << 10
CHUNKS = 4
DEFAULT_USER = "root"
NEW_MODE = 0o644
MAX_DEPTH = 64


class Files:
    """The files of all guests."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests

    def read(self, sandbox_id: str, path: str, user: str, outlet: Outlet[bytes]) -> None:
        """Send what is in a file. Errors: NotFound, InvalidInput (a directory)."""
        with self._guests.using(sandbox_id) as envd:
            envd.files.download(
                _path(path), _Chunks(outlet), user=user or DEFAULT_USER, on_open=outlet.on_leave
            )

    def write(
        self, sandbox_id: str, path: str, user: str, content: Inlet, outlet: Outlet[int]
    ) -> None:
        """Replace a file by the content, parents are made; send its bytes. Errors: as of
        `EnvdClient.upload_file`, and what the content breaks off with."""
        account = user or DEFAULT_USER
        with self._guests.using(sandbox_id) as envd:
            target, mode = _target(envd.files, _path(path), account)
            folder, name = posixpath.split(target)
            draft = posixpath.join(folder, f".{name[:100]}.{secrets.token_hex(4)}.tmp")
            counted = _Counted(content)
            try:
                envd.upload_file(draft, counted, mode=mode, user=account, on_open=outlet.on_leave)
                envd.files.move(draft, target, user=account)
            except BaseException:
                with contextlib.suppress(Error):  # the guest may be gone
                    envd.files.remove(draft, user=account)
                raise
        outlet.send(counted.count)

    def list(self, sandbox_id: str, path: str, depth: int, user: str) -> list[FileEntry]:
        if depth > MAX_DEPTH:
            raise InvalidInput(f"a listing goes {MAX_DEPTH} levels deep at most, not {depth}")
        with self._guests.using(sandbox_id) as envd:
            found = envd.files.list(_path(path), depth=depth or 1, user=user or DEFAULT_USER)
        return messages.entries(found)

    def make(self, sandbox_id: str, path: str, user: str) -> FileEntry:
        with self._guests.using(sandbox_id) as envd:
            return messages.entry(envd.files.make_directory(_path(path), user=user or DEFAULT_USER))

    def remove(self, sandbox_id: str, path: str, user: str) -> None:
        """With all below it. Errors: NotFound."""
        account = user or DEFAULT_USER
        with self._guests.using(sandbox_id) as envd:
            envd.files.stat(_path(path), user=account)
            envd.files.remove(path, user=account)

    def stat(self, sandbox_id: str, path: str, user: str) -> FileEntry:
        with self._guests.using(sandbox_id) as envd:
            return messages.entry(envd.files.stat(_path(path), user=user or DEFAULT_USER))


class _Counted:
    """Content as the guest's client wants it; how much of it there was."""

    def __init__(self, content: Inlet) -> None:
        self._content = content
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        for data in self._content:
            self.count += len(data)
            if data:  # an empty chunk would end the body
                yield data


class _Chunks:
    """What a guest's client writes to; sends pieces of at most CHUNK_BYTES."""

    def __init__(self, outlet: Outlet[bytes]) -> None:
        self._outlet = outlet

    def write(self, data: bytes) -> int:
        for at in range(0, len(data), CHUNK_BYTES):
            self._outlet.send(data[at : at + CHUNK_BYTES])
        return len(data)


def _target(files: GuestFiles, path: str, user: str) -> tuple[str, int]:
    """Where a file that is to be written lies in the end, and the mode that it gets."""
    try:
        found = files.stat(path, user=user)
    except NotFound:
        return path, NEW_MODE
    _check_is_file(found)
    return found.symlink_target or found.path, found.mode & 0o7777


def _check_is_file(found: Entry) -> None:
    if found.kind is Kind.DIRECTORY:
        raise InvalidInput(f"{found.path} is a directory")
    is_dangling = found.symlink_target is not None and found.kind is Kind.OTHER
    if found.kind is Kind.OTHER and not is_dangling:
        raise InvalidInput(f"{found.path} is no file")


def _path(path: str) -> str:
    """Errors: InvalidInput."""
    if not path or "\0" in path:
        raise InvalidInput("a path has at least one character, and no NUL")
    return path
