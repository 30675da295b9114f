"""The `wrenn` command: assembles its groups, and turns every error into one sentence and a hint."""

import logging
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from wrennd.cli import doctor, image, run, setup, version
from wrennd.core.errors import Error

# Our own failures, apart from the command's: 124 to 127 as timeout(1), docker and shells use them.
FAILED = 125
INTERRUPTED = 128 + signal.SIGINT

log = logging.getLogger(__name__)
app = typer.Typer(
    name="wrenn",
    help="Run untrusted code in microVMs on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(
    "run",
    help=run.HELP,
    # What follows the first word of the command is the command's.
    context_settings={"allow_interspersed_args": False},
)(run.run)
app.command("setup", help=setup.HELP)(setup.setup)
app.command("doctor", help=doctor.HELP)(doctor.doctor)
app.command("version", help=version.HELP)(version.version)
app.add_typer(image.app, name="image", help=image.HELP)


def main() -> NoReturn:
    """The entry point. Exits with the command's own code, 2 for wrong usage, 125 when we fail."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _unwind)
    try:
        code = app(standalone_mode=False)
    except Error as error:
        code = _explain(error)
    except typer.TyperException as error:
        code = _explain_usage(error)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:  # whoever read our output is gone
        code = 128 + signal.SIGPIPE
    except Exception as error:
        log.debug("internal error", exc_info=True)
        code = _explain(
            Error(
                f"internal error: {type(error).__name__}: {error}",
                hint="with WRENN_LOG_LEVEL=debug the same command shows where",
            )
        )
    _flush()
    sys.exit(code if isinstance(code, int) else 0)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    """End by exception, so that everything that is held is let go."""
    raise SystemExit(128 + number)


def _explain(error: Error) -> int:
    print(f"wrenn: {error}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {error.hint}", file=sys.stderr)
    return FAILED


def _explain_usage(error: typer.TyperException) -> int:
    print(f"wrenn: {error.format_message()}", file=sys.stderr)
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "wrenn"
    print(f"  hint: {command} --help shows how it is used", file=sys.stderr)
    return error.exit_code


def _flush() -> None:
    """Flush now: at interpreter exit a reader that is gone would print a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            sys.exit(128 + signal.SIGPIPE)
