"""Write a tree of files below one directory, by names that nobody vouches for.

Every step of a path is opened from the directory before it and never through a link, so nothing
is ever written outside, whatever links the tree itself holds and whoever else changes it.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class UnsafePath(ValueError):
    """A path that leads out of the tree, or names nothing in it."""


class Tree:
    """A directory to write in. Owns its descriptor; `close` may be called twice.

    Permissions are given without the set-uid, set-gid and sticky bits. Errors: OSError (EEXIST for
    what is there, ELOOP and ENOTDIR for a way through a link), UnsafePath.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._modes: list[tuple[bytes, int]] = []

    def make_directory(self, path: bytes, mode: int) -> None:
        """What is there already stays. Its mode is set by `finish`: it may forbid writing."""
        parts = _parts(path, may_be_root=True)
        with self._parent(parts) as (parent, name):
            if name is not None:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=parent)
        self._modes.append((path, mode & 0o777))

    def write_file(self, path: bytes, mode: int, content: Iterable[bytes]) -> None:
        with self._parent(_parts(path)) as (parent, name):
            assert name is not None
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=parent)
        with os.fdopen(fd, "wb") as file:
            for data in content:
                file.write(data)
            os.fchmod(file.fileno(), mode & 0o777)

    def make_symlink(self, path: bytes, target: bytes) -> None:
        """Kept as it is: it may lead anywhere, and is never followed here."""
        with self._parent(_parts(path)) as (parent, name):
            assert name is not None
            os.symlink(target, name, dir_fd=parent)

    def make_link(self, path: bytes, target: bytes) -> None:
        """A second name for a file of this tree."""
        with (
            self._parent(_parts(target)) as (theirs, other),
            self._parent(_parts(path)) as (parent, name),
        ):
            assert name is not None
            assert other is not None
            os.link(other, name, src_dir_fd=theirs, dst_dir_fd=parent, follow_symlinks=False)

    def finish(self) -> None:
        """Give directories their modes, the innermost first."""
        for path, mode in reversed(self._modes):
            with self._opened(_parts(path, may_be_root=True)) as fd:
                os.fchmod(fd, mode)

    @contextmanager
    def _parent(self, parts: list[bytes]) -> Iterator[tuple[int, bytes | None]]:
        """The directory of the last part, and that part (None: the tree itself)."""
        with self._opened(parts[:-1]) as fd:
            yield fd, (parts[-1] if parts else None)

    @contextmanager
    def _opened(self, parts: list[bytes]) -> Iterator[int]:
        fd = os.dup(self._fd)
        try:
            for part in parts:
                below = os.open(part, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _parts(path: bytes, *, may_be_root: bool = False) -> list[bytes]:
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if path.startswith(b"/") or b".." in parts or b"\0" in path:
        raise UnsafePath(f"{path!r} leads out of the tree")
    if not parts and not may_be_root:
        raise UnsafePath(f"{path!r} names nothing in the tree")
    return parts
