"""A tree of files grown entry by entry, below one directory, through no symlink.

For the child of `unpack.py`, which is confined already; that a link is never followed is what makes
the tree come out as the archive says. A later entry of the same name replaces an earlier one.
"""

import contextlib
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from typing import IO

from wrennd.images.entries import BadTree, Entry, Kind, TooLarge

_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """Owns `root` (a descriptor) until `finish`.

    entries: those of the archive, and directories that none of them named. written: bytes of data,
    holes not counted.
    """

    def __init__(self, root: int, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._parent: tuple[tuple[str, ...], int] = ((), root)  # where the last entry went
        self._times: dict[tuple[str, ...], float] = {}  # of directories, which change until the end
        self._left_out = 0
        self._lost_xattrs = 0
        self.entries = 0
        self.written = 0

    def add(self, entry: Entry, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        """Make one entry; its data come from the archive. Errors: BadTree; OSError."""
        self.entries += 1
        self._lost_xattrs += entry.lost_xattrs
        if entry.kind is Kind.LEFT_OUT:
            self._left_out += 1
        elif not entry.parts:
            self._finish_directory(self._root, entry)
        else:
            self._make(entry, member, archive)

    def finish(self) -> None:
        """Give directories their times, which what was made in them has changed."""
        for path, mtime in self._times.items():
            try:
                fd = self._walk(path, "", is_made=False)
            except (BadTree, FileNotFoundError):
                continue  # replaced by something else since
            os.utime(fd, (mtime, mtime))
            os.close(fd)
        self._leave()
        os.close(self._root)

    def notes(self) -> Iterator[str]:
        """What of the archive is not in the tree, for people."""
        if self._left_out:
            yield f"{self._left_out} devices in /dev were left out: the guest makes its own"
        if self._lost_xattrs:
            yield f"{self._lost_xattrs} extended attributes other than user.* were left out"

    def _make(self, entry: Entry, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        parent = self._directory(entry.parts[:-1], member.name)
        name = entry.parts[-1]
        self._make_room(parent, name, entry)
        match entry.kind:
            case Kind.DIRECTORY:
                self._make_directory(parent, name, entry)
            case Kind.SYMLINK:
                os.symlink(entry.target, name, dir_fd=parent)
                os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
                times = (entry.mtime, entry.mtime)
                os.utime(name, times, dir_fd=parent, follow_symlinks=False)
            case Kind.HARD_LINK:
                self._link(entry, member.name)
            case _:
                self._write_file(parent, name, entry, member, archive)

    def _make_room(self, parent: int, name: str, entry: Entry) -> None:
        """Remove what an earlier entry left there; a directory stays one."""
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=parent)
        elif entry.kind is not Kind.DIRECTORY:
            shutil.rmtree(name, dir_fd=parent)

    def _make_directory(self, parent: int, name: str, entry: Entry) -> None:
        with contextlib.suppress(FileExistsError):  # a directory: seen a moment ago
            os.mkdir(name, dir_fd=parent)
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            self._finish_directory(fd, entry)
        finally:
            os.close(fd)

    def _finish_directory(self, fd: int, entry: Entry) -> None:
        _dress(fd, entry)
        self._times[entry.parts] = entry.mtime

    def _link(self, entry: Entry, name: str) -> None:
        """Between directories, so both must be open."""
        target = os.dup(self._directory(entry.linked[:-1], name)) if entry.linked else -1
        try:
            found = os.stat(entry.linked[-1], dir_fd=target, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                raise BadTree(f"the hard link {name!r} is to a directory")
            parent = self._directory(entry.parts[:-1], name)
            os.link(
                entry.linked[-1],
                entry.parts[-1],
                src_dir_fd=target,
                dst_dir_fd=parent,
                follow_symlinks=False,
            )
        except (FileNotFoundError, IndexError):
            gone = "/".join(entry.linked)
            raise BadTree(
                f"the hard link {name!r} is to {gone!r}, which is not in the tree"
            ) from None
        finally:
            if target >= 0:
                os.close(target)

    def _write_file(
        self,
        parent: int,
        name: str,
        entry: Entry,
        member: tarfile.TarInfo,
        archive: tarfile.TarFile,
    ) -> None:
        source: IO[bytes] = archive.fileobj  # type: ignore[assignment]
        source.seek(member.offset_data)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            os.ftruncate(fd, member.size)  # what holes leave unwritten
            runs: list[tuple[int, int]] = member.sparse or [(0, member.size)]  # type: ignore[assignment]
            for start, size in runs:
                self._write_run(fd, source, start, size, member.name)
            _dress(fd, entry)
            os.utime(fd, (entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _write_run(self, fd: int, source: IO[bytes], start: int, size: int, name: str) -> None:
        self.written += size
        if self.written > self._max_bytes:
            mib = self._max_bytes >> 20
            raise TooLarge(f"its files don't fit on a disk of {mib} MiB ({name!r} is too much)")
        os.lseek(fd, start, os.SEEK_SET)
        while size > 0:
            data = source.read(min(_CHUNK, size))
            if not data:
                raise BadTree(f"the archive ends in the middle of {name!r}")
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            size -= len(data)

    def _directory(self, path: tuple[str, ...], wanted_by: str) -> int:
        """A descriptor of that directory, made where it is missing; ours until the next call."""
        if self._parent[0] != path:
            fd = self._walk(path, wanted_by, is_made=True)
            self._leave()
            self._parent = (path, fd)
        return self._parent[1]

    def _walk(self, path: tuple[str, ...], wanted_by: str, *, is_made: bool) -> int:
        fd = os.dup(self._root)
        try:
            for at, part in enumerate(path):
                if is_made:
                    self.entries += _make_if_missing(fd, part)
                below = _enter(fd, part, "/".join(path[: at + 1]), wanted_by)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _leave(self) -> None:
        _, fd = self._parent
        if fd != self._root:
            os.close(fd)
        self._parent = ((), self._root)


def _enter(fd: int, part: str, path: str, wanted_by: str) -> int:
    try:
        return os.open(part, _DIRECTORY, dir_fd=fd)
    except FileNotFoundError:
        raise
    except OSError as error:  # ELOOP or ENOTDIR, of a link or a file
        found = os.stat(part, dir_fd=fd, follow_symlinks=False).st_mode
        if stat.S_ISDIR(found):
            raise
        what = "a symlink" if stat.S_ISLNK(found) else "no directory"
        raise BadTree(f"{wanted_by!r} is to lie below {path!r}, which is {what}") from error


def _make_if_missing(fd: int, part: str) -> bool:
    """Whether it was missing."""
    try:
        os.mkdir(part, dir_fd=fd)
    except FileExistsError:
        return False
    return True


def _dress(fd: int, entry: Entry) -> None:
    """Owner first: a change of it takes setuid bits and capabilities away."""
    os.fchown(fd, entry.uid, entry.gid)
    os.fchmod(fd, entry.mode)
    for name, value in entry.xattrs.items():
        os.setxattr(fd, name, value)
