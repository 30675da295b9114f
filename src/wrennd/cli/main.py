"""The `wrenn` command's outermost frame: signals, streams, and every error as one sentence.

What it runs is put together in `cli/commands.py`, which is imported only when all is in place.
"""

import logging
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from wrennd.core.errors import Error
from wrennd.core.text import printable

if TYPE_CHECKING:
    import typer

# Our own failures, apart from the command's: 124 to 127 as timeout(1), docker and shells use them.
FAILED = 125
READER_GONE = 128 + signal.SIGPIPE

log = logging.getLogger(__name__)


class Interrupted(BaseException):
    """A signal came that ends us: unwinds everything that is held."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main() -> NoReturn:
    """The entry point. Exits with the command's own code, 2 for wrong usage, 125 when we fail."""
    _open_standard_streams()
    try:
        _catch_signals()
        code = _run()
    except Interrupted as error:
        # What was still to be printed may be what we waited with.
        _discard_output()
        code = 128 + error.number
    sys.exit(_flushed(code))


def _open_standard_streams() -> None:
    """What was closed becomes /dev/null: else the next file of ours would be taken for it."""
    for fd, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest free number, which is fd
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - lives as long as we do
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _catch_signals() -> None:
    """End by exception on the first signal; what it ignores (nohup) stays ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _unwind)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    """A second signal must not interrupt the clean-up that the first has begun."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(number)


def _run() -> int:
    import typer

    from wrennd.cli.commands import app_for

    try:
        code = app_for(sys.argv[1:])(standalone_mode=False)
    except Error as error:
        return explain(error)
    except typer.TyperException as error:
        return _explain_usage(error)
    except typer.Abort:
        return FAILED
    except BrokenPipeError:  # whoever read our output is gone
        return READER_GONE
    except Exception as error:
        log.debug("internal error", exc_info=True)
        return explain(
            Error(
                f"internal error: {type(error).__name__}: {error}",
                hint="with WRENN_LOG_LEVEL=debug the same command shows where",
            )
        )
    return code if isinstance(code, int) else 0


def explain(error: Error) -> int:
    """Print it; the exit code that belongs to it."""
    print(f"wrenn: {printable(str(error))}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {printable(error.hint)}", file=sys.stderr)
    return FAILED


def _explain_usage(error: "typer.TyperException") -> int:
    from wrennd.cli import usage

    message = error.format_message()
    if message.startswith("Usage:"):  # nothing was asked for: that is the help
        print(message, file=sys.stderr)
        return 2
    print(f"wrenn: {usage.sentence(message)}", file=sys.stderr)
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "wrenn"
    print(f"  hint: {command} --help shows how it is used", file=sys.stderr)
    return 2


def _flushed(code: int) -> int:
    """Flush now: at interpreter exit a reader that is gone, or a full disk, would print a
    traceback."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = READER_GONE
    except OSError as error:
        code = explain(Error(f"the output can't be written: {error.strerror}"))
    else:
        return code
    _discard_output()
    return code


def _discard_output() -> None:
    """What is buffered for stdout, and what still comes, goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
