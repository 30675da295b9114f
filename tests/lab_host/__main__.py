"""The commands behind `make lab` and `make lab-shell`; docs/lab.md describes them.

    python -m lab_host run [--firecracker FILE] [--timeout S] [-- PYTEST_ARGUMENT...]
    python -m lab_host shell [--firecracker FILE]
    python -m lab_host do [--firecracker FILE] [--timeout S] COMMAND

The exit code of `run` and `do` is pytest's or the command's; 125 says that the lab itself failed.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from built_images import prepared_layout
from lab_host import disk, guests, machine, order
from lab_host.recipe import REPOSITORY
from wrennd.core.deadline import Deadline
from wrennd.core.errors import Error

LAB = REPOSITORY / ".cache" / "lab"
TIMEOUT_S = 4 * 3600.0
FAILED = 125


def main() -> int:
    options = _parser().parse_args()
    try:
        made = _order(options)
        directory = fresh_directory()
        boot = prepare(made, directory)
        if not made.command:
            return machine.shell(boot)
        code = machine.run(boot, Deadline.after(options.timeout), _show)
        _say(f"exit code {code}; results and logs: {directory}")
    except (machine.LabFailed, Error, OSError) as error:
        _say(str(error))
        return FAILED
    return code


def fresh_directory() -> Path:
    """For one run's files; those of the runs before are gone, but for runs that go on."""
    runs = LAB / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for old in sorted(runs.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT_RUNS]:
        shutil.rmtree(old)
    return Path(tempfile.mkdtemp(prefix="", dir=runs))


KEPT_RUNS = 8


def prepare(made: order.Order, directory: Path) -> machine.Boot:
    """Everything that a boot needs, built where it is missing."""
    root = disk.prepared(LAB, _say)
    data = guests.prepared(LAB, prepared_layout())
    target = directory / "order.tar"
    order.write(made, target)
    return machine.Boot(disk=root, data=data, order=target, directory=directory)


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
        if name != "shell":
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
