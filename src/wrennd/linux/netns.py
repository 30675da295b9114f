"""Named network namespaces: a file in /run/netns on which the namespace is mounted.

They are made by a child (`netns_child.py`), so that no thread of this process ever leaves its own
namespace. Work inside one is done through descriptors that the child opened there, or by programs
started with `enter`.
"""

import ctypes
import errno
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from wrennd.core.deadline import Deadline
from wrennd.linux import libc, process

NETNS_DIR = Path("/run/netns")
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

_umount2 = libc.function("umount2", ctypes.c_char_p, ctypes.c_int)
_CHILD = Path(__file__).with_name("netns_child.py")


@dataclass(frozen=True, kw_only=True)
class Inside:
    """Descriptors of one namespace: a routing netlink socket and /dev/net/tun. The receiver's."""

    route: int
    tun: int


@contextmanager
def named(name: str) -> Iterator[Path]:
    """As `reserve`, for the length of a block."""
    path = reserve(name)
    try:
        yield path
    finally:
        remove(path)


def reserve(name: str) -> Path:
    """Reserve the name of a namespace: an empty file. `remove` takes away mount and file.

    Errors: FileExistsError when the name is taken.
    """
    NETNS_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = NETNS_DIR / name
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    return path


class Making:
    """A namespace that a child is making: its 20 ms can be used for something else.

    Resources: owns the child and the channel to it; `close()` ends the child, may be called twice.
    """

    def __init__(self, path: Path, sysctls: Mapping[str, int]) -> None:
        """Mount a new namespace on the file `path` and set its sysctls ("ipv4/ip_forward")."""
        self._path = path
        settings = [f"{name}={value}" for name, value in sysctls.items()]
        with ExitStack() as held:
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            held.callback(self._channel.close)
            with theirs:
                self._child = process.spawn(
                    [sys.executable, "-I", "-S", _CHILD, str(theirs.fileno()), path, *settings],
                    pass_fds=[theirs.fileno()],
                    stderr=process.PIPE,
                )
            held.pop_all()

    def finish(self, deadline: Deadline) -> Inside:
        """Wait until it is made. The caller owns the two descriptors.

        Errors: OSError with the child's last words; TimeoutError.
        """
        self._channel.settimeout(max(deadline.remaining_s, 0.001))  # 0 would mean "do not block"
        _, fds, _, _ = socket.recv_fds(self._channel, 1, 2)
        if len(fds) != 2:
            assert self._child.stderr is not None
            said = self._child.stderr.read().decode(errors="replace").strip()
            raise OSError(errno.EIO, f"the namespace {self._path.name} could not be made: {said}")
        return Inside(route=fds[0], tun=fds[1])

    def close(self) -> None:
        self._channel.close()
        self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def remove(path: Path) -> None:
    """Unmount and remove a name; fine when it is gone. The namespace itself dies when unused."""
    try:
        libc.check(_umount2(os.fsencode(path), MNT_DETACH | UMOUNT_NOFOLLOW), path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # not a mount point; no such file
            raise
    path.unlink(missing_ok=True)


def names() -> list[str]:
    try:
        return sorted(entry.name for entry in NETNS_DIR.iterdir())
    except FileNotFoundError:
        return []


def enter(path: Path) -> list[str]:
    """The words to put before a command so that it runs in that namespace."""
    return ["nsenter", f"--net={path}", "--"]
