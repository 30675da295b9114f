"""A process's standard streams: pipes or a terminal, the child's ends and ours."""

from __future__ import annotations

import os
from fcntl import ioctl

TIOCSWINSZ = 0x5414
PIPE_CHUNK_BYTES = 32 << 10
TERMINAL_CHUNK_BYTES = 16 << 10


class Stdio:
    """Owns the descriptors of both sides until they are taken. `close` may be called twice.

    outputs: what we read, by the name that its data has on the wire.
    input: what we write to, or -1.
    """

    def __init__(self) -> None:
        self.child: list[int] = []
        self.outputs: dict[str, int] = {}
        self.input = -1
        self.is_terminal = False

    @property
    def chunk_bytes(self) -> int:
        return TERMINAL_CHUNK_BYTES if self.is_terminal else PIPE_CHUNK_BYTES

    def child_fds(self) -> tuple[int, int, int]:
        first, last = self.child[0], self.child[-1]
        return first, self.child[1] if len(self.child) > 1 else first, last

    def close_child(self) -> None:
        while self.child:
            os.close(self.child.pop())

    def take_outputs(self) -> dict[str, int]:
        outputs, self.outputs = self.outputs, {}
        return outputs

    def take_input(self) -> int:
        fd, self.input = self.input, -1
        return fd

    def close(self) -> None:
        self.close_child()
        for fd in self.take_outputs().values():
            os.close(fd)
        fd = self.take_input()
        if fd >= 0:
            os.close(fd)


def pipes(*, has_stdin: bool) -> Stdio:
    """Errors: OSError when descriptors run out, with nothing left open."""
    stdio = Stdio()
    try:
        if has_stdin:
            stdin, stdio.input = os.pipe()
        else:
            stdin = os.open("/dev/null", os.O_RDONLY)
        stdio.child.append(stdin)
        for name in ("stdout", "stderr"):
            stdio.outputs[name], end = os.pipe()
            stdio.child.append(end)
    except OSError:
        stdio.close()
        raise
    return stdio


def terminal(columns: int, rows: int) -> Stdio:
    """A new terminal of this size. Errors: OSError, as above."""
    stdio = Stdio()
    stdio.is_terminal = True
    try:
        stdio.outputs["pty"], slave = os.openpty()
        stdio.child.append(slave)
        # A descriptor of its own: reading and writing are watched independently.
        stdio.input = os.dup(stdio.outputs["pty"])
        resize(stdio.input, columns, rows)
    except OSError:
        stdio.close()
        raise
    return stdio


def resize(fd: int, columns: int, rows: int) -> None:
    """Set a terminal's size (struct winsize); the process group in front gets SIGWINCH."""
    size = min(rows, 0xFFFF).to_bytes(2, "little") + min(columns, 0xFFFF).to_bytes(2, "little")
    ioctl(fd, TIOCSWINSZ, size + bytes(4))
