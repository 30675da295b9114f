"""Where output goes that nobody controls the amount of: bounded, and never waiting.

A guest may print for ever, and whoever reads may stop, so a regular file is kept below a size and
a pipe or terminal gets what it takes at once; the rest is dropped. Writing never raises.
"""

import errno
import os
import select
import stat
import time
from collections.abc import Callable
from typing import Protocol

from wrennd.qemu_vmm.resources import TokenBucket

FILE_LIMIT = 1 << 20
CHUNK = 4096  # PIPE_BUF: what a pipe that polls writable takes without blocking


class Sink(Protocol):
    """Takes bytes. `write` returns how many of them were dropped."""

    def write(self, data: bytes) -> int: ...

    def close(self) -> None: ...


class Nowhere:
    """For a standard output that is closed."""

    def write(self, data: bytes) -> int:
        return len(data)

    def close(self) -> None:
        pass


class BoundedFile:
    """A regular file of at most `limit` bytes: when it is full, its older half goes.

    The newer half is kept in memory too, since the descriptor may be write-only. Owns the fd.
    """

    def __init__(self, fd: int, limit: int = FILE_LIMIT) -> None:
        self._fd, self._limit = fd, limit
        self._size = os.fstat(fd).st_size
        self._tail = bytearray()

    def write(self, data: bytes) -> int:
        keep = self._limit // 2
        self._tail += data[-keep:]
        del self._tail[:-keep]
        try:
            if self._size + len(data) > self._limit:
                os.ftruncate(self._fd, 0)
                os.lseek(self._fd, 0, os.SEEK_SET)
                self._size = 0
                data = bytes(self._tail)
            written = os.write(self._fd, data)
        except OSError:
            return len(data)  # no space, or no more allowed: a console is not worth dying for
        self._size += written
        return len(data) - written

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class Stream:
    """A pipe, terminal or socket. Once its reader is gone, everything is dropped. Owns the fd."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._is_broken = False

    def write(self, data: bytes) -> int:
        at = 0
        while at < len(data) and not self._is_broken and self._is_ready():
            try:
                at += os.write(self._fd, data[at : at + CHUNK])
            except OSError as error:
                self._is_broken = error.errno not in (errno.EAGAIN, errno.EINTR)
                break
        return len(data) - at

    def _is_ready(self) -> bool:
        events = self._poll.poll(0)
        return bool(events) and not events[0][1] & (select.POLLERR | select.POLLNVAL)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._is_broken = -1, True


class Limited:
    """A sink behind a token bucket of bytes, as `PUT /serial` asks for."""

    def __init__(
        self, sink: Sink, bucket: TokenBucket, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sink, self._bucket, self._clock = sink, bucket, clock
        self._burst = bucket.one_time_burst or 0
        self._tokens = float(bucket.size)
        self._filled_at = clock()

    def write(self, data: bytes) -> int:
        now = self._clock()
        rate = self._bucket.size * 1000 / self._bucket.refill_time
        self._tokens += (now - self._filled_at) * rate
        self._tokens = min(self._tokens, float(self._bucket.size))
        self._filled_at = now
        allowed = data[: self._burst + int(self._tokens)]
        from_burst = min(self._burst, len(allowed))
        self._burst -= from_burst
        self._tokens -= len(allowed) - from_burst
        return len(data) - len(allowed) + (self._sink.write(allowed) if allowed else 0)

    def close(self) -> None:
        self._sink.close()


def sink_of(fd: int) -> Sink:
    """The sink that fits `fd`, which it owns from now on."""
    try:
        kind = os.fstat(fd).st_mode
    except OSError:
        return Nowhere()
    return BoundedFile(fd) if stat.S_ISREG(kind) else Stream(fd)


def open_sink(path: str) -> Sink:
    """Open what a client named: made if absent; a FIFO needs no reader. Errors: OSError."""
    return sink_of(open_output(path))


def open_output(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    return os.open(path, flags, 0o644)
