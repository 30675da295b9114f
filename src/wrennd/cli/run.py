"""`wrenn run`: make a sandbox, run one command in it, and let both go."""

import sys
from dataclasses import dataclass
from pathlib import Path

from wrennd.cli import envfile, follow, standalone, terminal
from wrennd.cli import run_options as options
from wrennd.cli.options import DataDir, Json, configured
from wrennd.cli.progress import Progress
from wrennd.core.errors import InvalidInput
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxRequest
from wrennd.core.sandboxes import Sandbox
from wrennd.core.timings import Timings

HELP = "Run a command in a microVM of its own, and remove the microVM."
EXAMPLES = """\
Examples:
  wrenn run -- python3 -c 'print(2 ** 100)'
  wrenn run --copy ./app:/tmp/app --cwd /tmp/app -- python3 main.py
  wrenn run -t -- bash"""


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
    vcpus: options.Vcpus = None,
    memory: options.Memory = None,
    disk: options.Disk = None,
    env: options.Env = None,
    env_file: options.EnvFile = None,
    cwd: options.Cwd = "",
    user: options.User = "user",
    copy: options.Copies = None,
    timeout: options.Timeout = 0.0,
    dns: options.Dns = None,
    interactive: options.Interactive = False,
    as_terminal: options.AsTerminal = False,
    cold: options.Cold = False,
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
        env=follow.terminal_environment(as_terminal) | envfile.merged(env_file, env or []),
        cwd=cwd,
        user=user,
        has_stdin=interactive or as_terminal,
        terminal=terminal.size() if as_terminal else None,
    )
    request = SandboxRequest(
        id=new_sandbox_id(),
        template=template,
        vcpus=vcpus,
        mem_mib=memory,
        disk_mib=disk,
        dns=tuple(dns or ()),
        is_cold=cold,
    )
    printer = follow.Collected() if as_json else follow.Streamed()
    timings = Timings()
    try:
        with (
            standalone.making(config, Progress()) as sandboxes,
            sandboxes.temporary(request, timings) as sandbox,
            follow.alarm(timeout),
        ):
            _upload(sandbox, copies, user, timings)
            with timings.phase("command"):
                code = follow.command(sandbox, wanted, printer)
    except follow.TimedOut:
        print(f"wrenn: the command did not end within {timeout:g} s", file=sys.stderr)
        code = follow.TIMED_OUT
    finally:
        if show_timings and not as_json:
            follow.print_timings(timings)
    printer.finish(code, request.id, timings)
    return code


def _upload(sandbox: Sandbox, copies: list[Copy], user: str, timings: Timings) -> None:
    with timings.phase("copy"):
        for item in copies:
            sandbox.upload(item.source, item.destination, user=user)
