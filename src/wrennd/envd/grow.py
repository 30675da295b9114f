"""POST /grow: the root filesystem becomes as long as its disk, while it is in use.

The host gave the guest a longer disk; only the guest's own kernel ever resizes what is on it. That
may take seconds, and nothing wakes it before it is done, so a child does it. A disk that became
longer while the guest ran is so a moment after the host has said it: `bytes` is waited for.
"""

from __future__ import annotations

import os
from fcntl import ioctl
from struct import pack
from time import monotonic

from wrennd.envd.http import parse_query
from wrennd.envd.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.connection import Exchange
    from wrennd.envd.loop import Loop, Timer

EXT4_IOC_RESIZE_FS = 0x40086610  # _IOW('f', 16, __u64): blocks, fs/ext4/ext4.h
SECTOR = 512
ROOT = "/"
WAIT_S = 10.0
LOOK_S = 0.02


class Grow:
    """Handler of /grow: answers with the disk's length once the filesystem has it."""

    def __init__(self, exchange: Exchange, loop: Loop) -> None:
        self._exchange = exchange
        self._loop = loop
        self._pid = 0
        self._pidfd = -1
        self._bytes = 0
        self._wanted = 0
        self._deadline = monotonic() + WAIT_S
        self._timer: Timer | None = None

    def data(self, data: bytes) -> None:
        pass

    def end(self) -> None:
        try:
            self._wanted = parse_bytes(self._exchange.request.query)
        except ValueError as error:
            self._exchange.fail(400, str(error))
            return
        self._look()

    def _look(self) -> None:
        """Until the disk is as long as it should be; then begin."""
        try:
            self._bytes = disk_bytes(ROOT)
            if self._bytes < self._wanted:
                self._wait()
                return
            self._pid = fork_resize(ROOT, self._bytes)
            self._pidfd = os.pidfd_open(self._pid)
        except (OSError, ValueError) as error:
            self._exchange.fail(500, f"the filesystem can't grow: {error}")
            return
        self._loop.watch(self._pidfd, READ, lambda _events: self._ended())

    def _wait(self) -> None:
        if monotonic() < self._deadline:
            self._timer = self._loop.after(LOOK_S, self._look)
            return
        self._exchange.fail(
            500, f"the disk has {self._bytes} bytes, and was to have {self._wanted}"
        )

    def drained(self) -> None:
        pass

    def closed(self) -> None:
        """A child goes on, and is reaped when it has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _ended(self) -> None:
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if self._exchange.finished:
            return
        if code == 0:
            self._exchange.reply_json(200, {"diskBytes": self._bytes})
        else:
            why = os.strerror(code) if code > 0 else f"killed by signal {-code}"
            self._exchange.fail(500, f"the filesystem can't grow: {why}")


def parse_bytes(query: str) -> int:
    """How long the disk is to be at least. Errors: ValueError."""
    text = parse_query(query).get("bytes", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError(f"bytes must be a number of bytes, not {text!r}")
    return int(text)


def disk_bytes(path: str) -> int:
    """How long the block device is that `path` lies on. Errors: OSError, ValueError."""
    dev = os.stat(path).st_dev
    with open(f"/sys/dev/block/{os.major(dev)}:{os.minor(dev)}/size") as file:
        return int(file.read()) * SECTOR


def fork_resize(path: str, size: int) -> int:
    """The pid of a child that lets the ext4 at `path` be `size` bytes long; it exits with the errno
    of what failed, or 0. Errors: OSError."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            resize(path, size)
            code = 0
        except OSError as error:
            code = error.errno or code
        finally:
            os._exit(code)
    return pid


def resize(path: str, size: int) -> None:
    """Errors: OSError, ENOTTY when there is no ext4 at `path`."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ioctl(fd, EXT4_IOC_RESIZE_FS, pack("=Q", size // os.fstatvfs(fd).f_bsize))
    finally:
        os.close(fd)
