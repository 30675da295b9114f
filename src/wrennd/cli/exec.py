"""`wrenn exec`: run a command in a sandbox that is there."""

import sys

from wrennd.cli import envfile, follow, place, terminal
from wrennd.cli import run_options as options
from wrennd.cli.options import DataDir, Json, SandboxId, configured
from wrennd.core.errors import InvalidInput
from wrennd.core.model import Command
from wrennd.core.timings import Timings

HELP = "Run a command in a sandbox that runs."
EXAMPLES = """\
Examples:
  wrenn exec ID -- uname -a
  wrenn exec ID --user root -- apt-get update
  tar -c . | wrenn exec ID -i -- tar -xC /tmp"""


def exec_(  # noqa: PLR0913 - one parameter for each option is how Typer declares them
    sandbox_id: SandboxId,
    command: options.Words,
    env: options.Env = None,
    env_file: options.EnvFile = None,
    cwd: options.Cwd = "",
    user: options.User = "user",
    timeout: options.ExecTimeout = 0.0,
    interactive: options.Interactive = False,
    as_terminal: options.AsTerminal = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> int:
    """The command ends with us, unless we are killed outright."""
    config = configured(data_dir)
    if as_terminal and as_json:
        raise InvalidInput("-t and --json exclude each other", hint="a terminal's output is shown")
    wanted = Command(
        argv=tuple(command),
        env=follow.terminal_environment(as_terminal) | envfile.merged(env_file, env or []),
        cwd=cwd,
        user=user,
        has_stdin=interactive or as_terminal,
        terminal=terminal.size() if as_terminal else None,
    )
    printer = follow.Collected() if as_json else follow.Streamed()
    timings = Timings()
    with place.existing(config).connect(sandbox_id) as sandbox:
        try:
            with follow.alarm(timeout), timings.phase("command"):
                code = follow.command(sandbox, wanted, printer, sandbox_stays=True)
        except follow.TimedOut:
            print(f"wrenn: the command did not end within {timeout:g} s", file=sys.stderr)
            code = follow.TIMED_OUT
        printer.finish(code, sandbox.id, timings)
    return code
