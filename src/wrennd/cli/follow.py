"""One command in a sandbox, followed to its end: its streams are ours, its exit code too.

What `wrenn run` and `wrenn exec` have in common: input and output, the time limit, and the ways in
which a command can fail to run as exit codes.
"""

import contextlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

from wrennd.cli import terminal
from wrennd.core.config import terminal_type
from wrennd.core.errors import CommandNotExecutable, CommandNotFound, Error
from wrennd.core.model import Command
from wrennd.core.sandboxes import Exit, Output, Running, Sandbox
from wrennd.core.text import printable
from wrennd.core.timings import Timings

TIMED_OUT, NOT_EXECUTABLE, NOT_FOUND, READER_GONE = 124, 126, 127, 128 + signal.SIGPIPE
STDIN_CHUNK = 32 * 1024
REPEAT_S = 0.5


def terminal_environment(as_terminal: bool) -> dict[str, str]:
    """What a command with a terminal must know of it."""
    return {"TERM": terminal_type(), "LANG": "C.UTF-8"} if as_terminal else {}


def command(
    sandbox: Sandbox,
    wanted: Command,
    printer: "Streamed | Collected",
    *,
    sandbox_stays: bool = False,
) -> int:
    """Run it and say with which exit code we end.

    sandbox_stays: so the command would go on when we have to leave before its end, and is killed.
    """
    try:
        with (
            sandbox.start(wanted) as running,
            _killed_when_left(running) if sandbox_stays else nullcontext(),
            terminal.lent(running) if wanted.terminal else nullcontext(),
        ):
            return _follow(running, wanted.has_stdin, printer)
    except CommandNotFound as error:
        print(f"wrenn: {error}", file=sys.stderr)
        return NOT_FOUND
    except CommandNotExecutable as error:
        print(f"wrenn: {error}", file=sys.stderr)
        return NOT_EXECUTABLE
    except BrokenPipeError:  # whoever read our output is gone; Typer would make it a plain 1
        return READER_GONE


@contextmanager
def _killed_when_left(running: Running) -> Iterator[None]:
    """Whatever makes us leave before the command's end (a signal, the time limit, a reader that
    is gone) ends it too: nobody follows it any more."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Error):  # the sandbox may be gone, which is why we leave
            running.kill()
        raise


class TimedOut(BaseException):
    """The command's time is over. No Exception: nothing on the way may take it for its own."""


@contextmanager
def alarm(seconds: float, *, repeat_s: float = REPEAT_S) -> Iterator[None]:
    """Raise TimedOut in the main thread, whatever it waits for, after `seconds` (0: never)."""
    if not seconds:
        yield
        return

    has_rung = False

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal has_rung
        if not has_rung:
            has_rung = True
            raise TimedOut

    signal.signal(signal.SIGALRM, ring)
    # Repeated: a signal that comes just before a system call does not interrupt it, and Python
    # would run the handler after it only.
    signal.setitimer(signal.ITIMER_REAL, seconds, repeat_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _follow(running: Running, has_stdin: bool, printer: "Streamed | Collected") -> int:
    """Print what comes until the command ends. Signals interrupt every wait in here."""
    if has_stdin:
        threading.Thread(target=_pump_stdin, args=(running,), daemon=True).start()
    for event in running.events():
        if isinstance(event, Exit):
            return event.code
        printer.write(event)
    raise AssertionError("the events of a command end with its exit")


def _pump_stdin(running: Running) -> None:
    """Our stdin until its end, or until the command takes no more."""
    # The sandbox may go while this waits for input; its end is told by the events.
    with contextlib.suppress(Error):
        while data := _read_stdin():
            if not running.send_stdin(data):
                return
        running.close_stdin()


def _read_stdin() -> bytes:
    """Empty at the end, and when stdin is nothing that can be read."""
    try:
        return os.read(0, STDIN_CHUNK)
    except OSError:
        return b""


class Streamed:
    """Output as it comes, stdout and stderr apart, byte for byte.

    No buffer of ours: what a write that was interrupted had left in one would be flushed at our
    end, and wait for a reader once more.
    """

    def __init__(self, stdout: int = 1, stderr: int = 2) -> None:
        self._fds = {"stdout": stdout, "stderr": stderr}

    def write(self, output: Output) -> None:
        left = memoryview(output.data)
        try:
            while left:
                left = left[_write_some(self._fds[output.stream], left) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Error(f"the command's output can't be written: {error.strerror}") from error

    def finish(self, code: int, sandbox_id: str, timings: Timings) -> None:
        pass


def _write_some(fd: int, data: memoryview) -> int:
    """How much was taken; waits for room also where another user of the stream made it so that
    a write would not.
    """
    try:
        return os.write(fd, data)
    except BlockingIOError:
        select.select([], [fd], [])
        return 0


class Collected:
    """Everything in one JSON object at the end; undecodable bytes are replaced."""

    def __init__(self) -> None:
        self._parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}

    def write(self, output: Output) -> None:
        self._parts[output.stream].append(output.data)

    def finish(self, code: int, sandbox_id: str, timings: Timings) -> None:
        texts = {k: b"".join(v).decode(errors="replace") for k, v in self._parts.items()}
        print(
            json.dumps(
                {
                    "sandbox_id": sandbox_id,
                    "exit_code": code,
                    **texts,
                    **timings.to_json(),
                }
            )
        )


def print_timings(timings: Timings) -> None:
    for name, text in timings.notes.items():
        print(f"{name:>16} {printable(text)}", file=sys.stderr)
    for name, ms in timings.phases_ms.items():
        print(f"{name:>16} {ms:9.1f} ms", file=sys.stderr)
    print(f"{'total':>16} {timings.total_ms:9.1f} ms", file=sys.stderr)
