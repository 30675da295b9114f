"""A whole run: everything that a boot needs is made where it is missing, the lab boots, and what
came of it stays in a directory below `.cache/lab/runs/`.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from built_images import prepared_layout
from lab_host import disk, guests, machine, order
from lab_host.recipe import REPOSITORY
from wrennd.core.deadline import Deadline

LAB = REPOSITORY / ".cache" / "lab"
KEPT_RUNS = 8


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """exit_code: the command's. directory: console.log, qemu.log, results/."""

    exit_code: int
    directory: Path


def run(
    made: order.Order, *, timeout_s: float, show: Callable[[bytes], None], report: disk.Report
) -> Outcome:
    """Boot the lab and do what the order says; its output goes to `show` as it comes.

    Without a command: a shell, at this process's terminal, and without a time limit.
    Errors: machine.LabFailed; DeadlineExceeded; those of the builders.
    """
    root = disk.prepared(LAB, report)
    data = guests.prepared(LAB, prepared_layout())
    directory = _fresh_directory()
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_SH)
        target = directory / "order.tar"
        order.write(made, target)
        boot = machine.Boot(disk=root, data=data, order=target, directory=directory)
        if made.command:
            code = machine.run(boot, Deadline.after(timeout_s), show)
        else:
            code = machine.shell(boot)
        target.unlink()
    finally:
        os.close(held)
    return Outcome(exit_code=code, directory=directory)


def _fresh_directory() -> Path:
    """For one run's files; of older runs, the last few stay, and those that go on."""
    runs = LAB / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for old in sorted(runs.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT_RUNS]:
        if not _is_held(old):
            shutil.rmtree(old)
    return Path(tempfile.mkdtemp(prefix="", dir=runs))


def _is_held(directory: Path) -> bool:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
