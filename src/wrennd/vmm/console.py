"""What a guest or a VMM wrote to its files: read with suspicion, and kept from growing.

The files lie in a directory that the VMM's uid may write, so they are opened without following
links and without blocking, and what is shown of them can't steer a terminal.
"""

import contextlib
import errno
import os
import select
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TAIL_BYTES = 16 * 1024
MAX_BYTES = 4 << 20  # for a VMM that does not bound its output itself (Firecracker)
LOOK_EVERY_S = 1.0


def tail(path: Path, lines: int) -> list[str]:
    """The last lines, printable characters only; nothing when there is no such file."""
    try:
        fd = _open(path, os.O_RDONLY)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        raw = os.pread(fd, TAIL_BYTES, max(0, os.fstat(fd).st_size - TAIL_BYTES))
    finally:
        os.close(fd)
    # Where a file was emptied under a writer that goes on at its old place, there is a hole.
    text = (
        raw.replace(b"\0", b"").decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    )
    kept = ["".join(c if c.isprintable() else "?" for c in line) for line in text.split("\n")]
    return [line for line in kept if line.strip()][-lines:]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Of a file, as it is. file: which one, while its machine runs."""

    content: bytes
    file: int


def read(path: Path, offset: int, limit: int) -> Piece:
    """Nothing where there is no more. Errors: FileNotFoundError, also for what is no plain file."""
    try:
        fd = _open(path, os.O_RDONLY)
    except OSError as error:
        raise FileNotFoundError(error.errno, "no console that can be read", path) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, "no plain file", path)
        return Piece(content=os.pread(fd, limit, min(offset, found.st_size)), file=found.st_ino)
    finally:
        os.close(fd)


@contextmanager
def bounded(paths: tuple[Path, ...], pidfd: int) -> Iterator[None]:
    """Empty what has grown past MAX_BYTES, whenever it has, until the process of `pidfd` ends."""
    stop = os.eventfd(0, os.EFD_CLOEXEC)
    thread = threading.Thread(target=_watch, args=(paths, pidfd, stop), name="console", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.eventfd_write(stop, 1)
        thread.join()
        os.close(stop)


def _watch(paths: tuple[Path, ...], pidfd: int, stop: int) -> None:
    while not select.select([pidfd, stop], [], [], LOOK_EVERY_S)[0]:
        for path in paths:
            trim(path)


def trim(path: Path) -> None:
    """Empty the file if it takes more than MAX_BYTES."""
    with contextlib.suppress(OSError):
        fd = _open(path, os.O_WRONLY)
        try:
            found = os.fstat(fd)
            if stat.S_ISREG(found.st_mode) and found.st_blocks * 512 > MAX_BYTES:
                os.ftruncate(fd, 0)
        finally:
            os.close(fd)


def _open(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
