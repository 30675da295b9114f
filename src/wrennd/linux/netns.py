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
    """Reserve the name of a namespace: an empty file. On exit mount and file are removed.

    Errors: FileExistsError when the name is taken.
    """
    NETNS_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = NETNS_DIR / name
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    try:
        yield path
    finally:
        remove(path)


def populate(path: Path, sysctls: Mapping[str, int], deadline: Deadline) -> Inside:
    """Make a namespace, mount it on the file `path`, and set its sysctls ("ipv4/ip_forward").

    The caller owns the two descriptors. Errors: OSError with the child's last words; TimeoutError.
    """
    settings = [f"{name}={value}" for name, value in sysctls.items()]
    with ExitStack() as held:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        held.callback(ours.close)
        with theirs:
            child = process.spawn(
                [sys.executable, "-I", "-S", _CHILD, str(theirs.fileno()), path, *settings],
                pass_fds=[theirs.fileno()],
                stderr=process.PIPE,
            )
            held.callback(child.close)
        ours.settimeout(deadline.remaining_s)
        _, fds, _, _ = socket.recv_fds(ours, 1, 2)
        if len(fds) != 2:
            assert child.stderr is not None
            said = child.stderr.read().decode(errors="replace").strip()
            raise OSError(errno.EIO, f"the namespace {path.name} could not be made: {said}")
        return Inside(route=fds[0], tun=fds[1])


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
