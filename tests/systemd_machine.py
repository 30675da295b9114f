"""A machine that systemd runs, in namespaces of every kind on this one.

Its files are this machine's, copied on write in memory; its processes, network, mounts, cgroups
and services are its own, and end with it. What runs in it sees the working tree and its virtual
environment where they are outside. `systemd_machine.sh` is its first process.

It has no way out: a sandbox in it has no internet.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wrennd.core.deadline import Deadline
from wrennd.linux.cgroup import Cgroup, Hierarchy
from wrennd.linux.process import CLEAN_ENVIRONMENT, Process, spawn

INIT = Path(__file__).with_suffix(".sh")
REPOSITORY = Path(__file__).parents[1]
WRENN = Path(sys.executable).with_name("wrenn")
# The lab host has a tenth of a machine's speed.
BOOT_S = 300.0
COMMAND_S = 400.0
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")


class SystemdMachine:
    """One that has booted. Commands run in it as root, each in all of its namespaces."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def run(self, *argv: str | os.PathLike[str], check: bool = True) -> str:
        """What the command prints on both streams. It succeeds, or `check` is false."""
        done = self.attempt(*argv)
        assert done.returncode == 0 or not check, (
            f"{argv} exited with {done.returncode}:\n{done.stdout}{self.journal()}"
        )
        return done.stdout

    def attempt(self, *argv: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
        enter = ("nsenter", "--target", str(self._pid), *NAMESPACES, "--")
        return subprocess.run(
            [*enter, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=CLEAN_ENVIRONMENT | {"HOME": "/root"},
            cwd="/",
            text=True,
            errors="replace",
            timeout=COMMAND_S,
            check=False,
        )

    def wrenn(self, *words: str) -> str:
        return self.run(WRENN, *words)

    def systemctl(self, *words: str, check: bool = True) -> str:
        return self.run("systemctl", *words, check=check).strip()

    def journal(self) -> str:
        """The end of what its services said."""
        done = self.attempt("journalctl", "--no-pager", "--quiet", "-n", "60")
        return done.stdout


@contextmanager
def booted(*shown: Path) -> Iterator[SystemdMachine]:
    """A machine whose systemd says that all is up. `shown`: directories that it sees, too.

    At the end everything in it is killed.
    """
    with ExitStack() as held:
        base = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="wrenn-systemd-")))
        group = _group(held, base.name)
        paths = dict.fromkeys((*shown, REPOSITORY, Path(sys.prefix)))
        init = held.enter_context(_spawned(group, base, list(paths)))
        deadline = Deadline.after(BOOT_S)
        machine = SystemdMachine(_first_process(init, deadline))
        _wait_until_up(machine, init, deadline)
        yield machine


def _group(held: ExitStack, name: str) -> Cgroup | None:
    """The cgroup that is the root of those in the machine."""
    hierarchy = Hierarchy.find()
    if hierarchy is None:
        return None
    group = hierarchy.make(f"{name}-machine", "root")
    held.callback(group.path.parent.rmdir)
    held.callback(_remove_tree, group)
    return group


def _remove_tree(group: Cgroup) -> None:
    group.kill()
    deadline = Deadline.after(30)
    for directory, _, _ in os.walk(group.path, topdown=False):
        Cgroup(Path(directory)).remove(deadline)


def _spawned(group: Cgroup | None, base: Path, shown: Sequence[Path]) -> Process:
    """`unshare`, which ends with us, and its child with it."""
    join = f"echo 0 >{group.procs} && " if group else ""
    unshare = ("unshare", *NAMESPACES, "--propagation", "private", "--fork", "--kill-child")
    script = f'{join}exec setpriv --pdeathsig KILL {" ".join(unshare)} "$@"'
    return spawn(["sh", "-c", script, "sh", "sh", INIT, base, *shown], stdout=1, stderr=2)


def _first_process(init: Process, deadline: Deadline) -> int:
    """The machine's PID 1, as its number is outside: what `unshare` has for a child."""
    children = Path(f"/proc/{init.pid}/task/{init.pid}/children")
    while True:
        assert not init.has_ended, f"the machine ended with {init.exit_code}"
        for pid in children.read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return int(pid)
        deadline.check("the machine's first process")
        time.sleep(0.02)


def _wait_until_up(machine: SystemdMachine, init: Process, deadline: Deadline) -> None:
    while True:
        assert not init.has_ended, f"the machine ended with {init.exit_code}"
        said = machine.attempt("systemctl", "is-system-running", "--wait").stdout.strip()
        if said == "running":
            return
        assert said != "degraded", machine.run("systemctl", "--failed") + machine.journal()
        deadline.check("the machine's boot")
        time.sleep(0.05)
