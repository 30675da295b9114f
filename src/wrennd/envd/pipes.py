"""The agent's ends of a process's standard streams or terminal, non-blocking."""

from __future__ import annotations

import errno
import os
from fcntl import ioctl

from wrennd.envd.connect import RpcError
from wrennd.envd.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wrennd.envd.loop import Loop

    Done = Callable[[RpcError | None], None]

FIONREAD = 0x541B
MAX_QUEUED_INPUT = 8 << 20


class Output:
    """Reads one stream of a process until its end, unless it is paused.

    Owns the descriptor. A paused pipe fills up and the process waits, which is the backpressure.
    """

    def __init__(
        self,
        loop: Loop,
        name: str,
        fd: int,
        chunk_bytes: int,
        on_data: Callable[[Output, bytes], None],
        on_end: Callable[[Output], None],
    ) -> None:
        self.name = name
        self.fd = fd
        # What the process itself had written by its end and nobody has read yet.
        self.owed = 0
        self._loop = loop
        self._chunk_bytes = chunk_bytes
        self._on_data = on_data
        self._on_end = on_end
        os.set_blocking(fd, False)
        self.resume()

    def pause(self) -> None:
        self._loop.unwatch(self.fd)

    def resume(self) -> None:
        if self.fd >= 0:
            self._loop.watch(self.fd, READ, self._ready)

    def note_owed(self) -> None:
        """The process has ended: whatever is in the pipe now was written before."""
        count = bytearray(4)
        ioctl(self.fd, FIONREAD, count)
        self.owed = int.from_bytes(count, "little")

    def close(self) -> None:
        if self.fd >= 0:
            self._loop.unwatch(self.fd)
            os.close(self.fd)
            self.fd = -1

    def _ready(self, _events: int) -> None:
        try:
            data = os.read(self.fd, self._chunk_bytes)
        except BlockingIOError:
            return
        except OSError as error:
            # So a terminal says that nobody has it open any more.
            if error.errno != errno.EIO:
                raise
            data = b""
        if data:
            self.owed = max(0, self.owed - len(data))
            self._on_data(self, data)
        else:
            self.owed = 0
            self.close()
            self._on_end(self)


class Input:
    """Writes to one stream of a process, in the order given. Owns the descriptor.

    Each write is answered when the process's pipe has taken all of it, so that who sends faster
    than the process reads is slowed down, not buffered.
    """

    def __init__(self, loop: Loop, fd: int) -> None:
        self._loop = loop
        self._fd = fd
        self._queue: list[tuple[memoryview, Done]] = []
        self._queued_bytes = 0
        self._on_closed: list[Done] = []
        os.set_blocking(fd, False)

    def write(self, data: bytes, done: Done) -> None:
        """Errors go to `done`: internal when the stream is closed on either end."""
        if self._fd < 0 or self._on_closed:
            done(RpcError("internal", "the input of the process is closed"))
        elif self._queued_bytes + len(data) > MAX_QUEUED_INPUT:
            done(RpcError("resource_exhausted", "too much input waits for the process already"))
        else:
            self._queue.append((memoryview(data), done))
            self._queued_bytes += len(data)
            self._flush()

    def close_after_writes(self, done: Done) -> None:
        """Close the stream once everything before is written. Closing twice is fine."""
        if self._fd < 0:
            done(None)
            return
        self._on_closed.append(done)
        self._flush()

    def close(self) -> None:
        """Close now; whoever waits is told so."""
        if self._fd < 0:
            return
        self._detach()
        queue, self._queue = self._queue, []
        for _, done in queue:
            done(RpcError("internal", "the process closed its input"))
        waiting, self._on_closed = self._on_closed, []
        for done in waiting:
            done(None)

    def _detach(self) -> None:
        fd, self._fd = self._fd, -1
        self._loop.unwatch(fd)
        os.close(fd)

    def _flush(self) -> None:
        finished: list[Done] = []
        try:
            while self._queue:
                data, done = self._queue[0]
                written = os.write(self._fd, data) if data else 0
                self._queued_bytes -= written
                if written == len(data):
                    del self._queue[0]
                    finished.append(done)
                else:
                    self._queue[0] = (data[written:], done)
        except BlockingIOError:
            pass
        except OSError:
            self._call(finished)
            self.close()
            return
        if self._queue:
            self._loop.watch(self._fd, WRITE, self._ready)
        else:
            self._loop.unwatch(self._fd)
            if self._on_closed:
                self._call(finished)
                self.close()
                return
        self._call(finished)

    def _call(self, finished: list[Done]) -> None:
        for done in finished:
            done(None)

    def _ready(self, _events: int) -> None:
        if self._fd >= 0:
            self._flush()
