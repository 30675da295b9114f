"""`wrenn run`: boot a sandbox, run one command in it, and let both go."""

import contextlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from wrennd.cli import envfile, standalone, terminal
from wrennd.cli import run_options as options
from wrennd.cli.options import DataDir, Json, configured
from wrennd.cli.progress import Progress
from wrennd.core.config import terminal_type
from wrennd.core.errors import CommandNotExecutable, CommandNotFound, Error, InvalidInput
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxSpec
from wrennd.core.sandboxes import Exit, Output, Running, Sandbox
from wrennd.core.timings import Timings

HELP = "Boot a microVM and run a command in it."
TIMED_OUT, NOT_EXECUTABLE, NOT_FOUND, READER_GONE = 124, 126, 127, 128 + signal.SIGPIPE
STDIN_CHUNK = 32 * 1024
REPEAT_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A file or directory of the host to be put into the sandbox first."""

    source: Path
    destination: str

    @classmethod
    def parse(cls, text: str) -> "Copy":
        source, colon, destination = text.rpartition(":")
        if not colon or not source or not destination:
            raise InvalidInput(f"{text!r} is not SRC:DST", hint="as in --copy ./app:/home/user/app")
        if not Path(source).exists():
            raise InvalidInput(f"{source!r} does not exist", hint="--copy takes SRC:DST")
        return cls(source=Path(source), destination=destination)


def run(  # noqa: PLR0913 - one parameter for each option is how Typer declares them
    command: options.Words,
    template: options.Template = "base",
    vcpus: options.Vcpus = 1,
    memory: options.Memory = 512,
    env: options.Env = None,
    env_file: options.EnvFile = None,
    cwd: options.Cwd = "",
    user: options.User = "user",
    copy: options.Copies = None,
    timeout: options.Timeout = 0.0,
    dns: options.Dns = None,
    interactive: options.Interactive = False,
    as_terminal: options.AsTerminal = False,
    as_json: Json = False,
    show_timings: options.ShowTimings = False,
    data_dir: DataDir = None,
) -> int:
    config = configured(data_dir)
    copies = [Copy.parse(text) for text in copy or ()]
    if as_terminal and as_json:
        raise InvalidInput("-t and --json exclude each other", hint="a terminal's output is shown")
    wanted = Command(
        argv=tuple(command),
        env=_environment(as_terminal) | envfile.merged(env_file, env or []),
        cwd=cwd,
        user=user,
        has_stdin=interactive or as_terminal,
        terminal=terminal.size() if as_terminal else None,
    )
    spec = SandboxSpec(
        id=new_sandbox_id(),
        image=template,
        vcpus=vcpus,
        mem_mib=memory,
        dns=tuple(dns or ()),
    )
    printer = _Collected() if as_json else _Streamed()
    timings = Timings()
    try:
        with (
            standalone.sandboxes(config, Progress()) as sandboxes,
            sandboxes.create(spec, timings) as sandbox,
            alarm(timeout),
        ):
            code = _in_sandbox(sandbox, wanted, copies, printer, timings)
    except TimedOut:
        print(f"wrenn: the command did not end within {timeout:g} s", file=sys.stderr)
        return TIMED_OUT
    finally:
        if show_timings and not as_json:
            _print_timings(timings)
    printer.finish(code, spec.id, timings)
    return code


def _environment(as_terminal: bool) -> dict[str, str]:
    """What a command with a terminal must know of it."""
    return {"TERM": terminal_type(), "LANG": "C.UTF-8"} if as_terminal else {}


class TimedOut(BaseException):
    """The command's time is over. No Exception: nothing on the way may take it for its own."""


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
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
    signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _in_sandbox(
    sandbox: Sandbox,
    wanted: Command,
    copies: list[Copy],
    printer: "_Streamed | _Collected",
    timings: Timings,
) -> int:
    """Copy, run, and translate the ways in which a command can fail to run into exit codes."""
    with timings.phase("copy"):
        for item in copies:
            sandbox.upload(item.source, item.destination, user=wanted.user)
    try:
        with (
            timings.phase("command"),
            sandbox.start(wanted) as running,
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


def _follow(running: Running, has_stdin: bool, printer: "_Streamed | _Collected") -> int:
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


class _Streamed:
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


class _Collected:
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
                    "timings_ms": timings.phases_ms,
                    "total_ms": round(timings.total_ms, 1),
                }
            )
        )


def _print_timings(timings: Timings) -> None:
    for name, ms in timings.phases_ms.items():
        print(f"{name:>16} {ms:9.1f} ms", file=sys.stderr)
    print(f"{'total':>16} {timings.total_ms:9.1f} ms", file=sys.stderr)
