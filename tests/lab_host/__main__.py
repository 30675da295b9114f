"""The commands behind `make lab` and `make lab-shell`; docs/lab.md describes them.

    python -m lab_host run [--firecracker FILE] [--timeout S] [-- PYTEST_ARGUMENT...]
    python -m lab_host shell [--firecracker FILE]
    python -m lab_host do [--firecracker FILE] [--timeout S] COMMAND

The exit code of `run` and `do` is pytest's or the command's; 125 says that the lab itself failed.
"""

import argparse
import os
import sys
from pathlib import Path

from lab_host import order, session
from lab_host.machine import LabFailed
from wrennd.core.errors import Error

TIMEOUT_S = 4 * 3600.0
FAILED = 125


def main() -> int:
    options = _parser().parse_args()
    try:
        done = session.run(_order(options), timeout_s=options.timeout, show=_show, report=_say)
    except (LabFailed, Error, OSError) as error:
        _say(str(error))
        return FAILED
    _say(f"exit code {done.exit_code}; logs and results: {done.directory}")
    return done.exit_code


def _order(options: argparse.Namespace) -> order.Order:
    if options.what == "run":
        return order.pytest_order(options.arguments, options.firecracker)
    if options.what == "do":
        return order.Order(command=options.command + "\n", firecracker=options.firecracker)
    size = os.get_terminal_size() if sys.stdin.isatty() else os.terminal_size((80, 24))
    terminal = (size.lines, size.columns, os.environ.get("TERM", "linux"))
    return order.Order(terminal=terminal, firecracker=options.firecracker)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab_host")
    verbs = parser.add_subparsers(dest="what", required=True)
    for name in ("run", "do", "shell"):
        verb = verbs.add_parser(name)
        verb.add_argument("--firecracker", type=Path)
        verb.add_argument("--timeout", type=float, default=TIMEOUT_S)
        if name == "run":
            verb.add_argument("arguments", nargs="*")
        if name == "do":
            verb.add_argument("command")
    return parser


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _say(line: str) -> None:
    print(f"lab: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
