"""A program in namespaces of its own: a network that is nothing but a loopback, host name, IPC.

They have no name on the host and end with the last process in them. What the program starts stays
in its network, so all of it is found there and ended with the block: orphans and other sessions
too. Mounts are not among them: a mount namespace would hold every mount that other tests make
meanwhile, and with it the loop device below, for as long as the program runs.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from wrennd.linux import libc

CLONE_NEWNET = 0x40000000
UNSHARE = ("unshare", "--net", "--uts", "--ipc", "--")
BRING_UP = ("/bin/sh", "-c", 'ip link set lo up && exec "$@"', "sh")
START_S = 20.0
END_S = 60.0

_setns = libc.function("setns", ctypes.c_int, ctypes.c_int)


@dataclass(frozen=True)
class Program:
    """What was started. `network` is a descriptor of its network, open until the block ends."""

    pid: int
    first_line: str
    network: int


@contextmanager
def started(argv: list[str], *, pass_fds: tuple[int, ...] = ()) -> Iterator[Program]:
    """Run a program that says on its stdout when it is ready; at the end kill all it has started.

    Needs root.
    """
    with ExitStack() as held:
        popen = held.enter_context(
            subprocess.Popen(
                [*UNSHARE, *BRING_UP, *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=pass_fds,
            )
        )
        held.callback(popen.kill)
        assert select.select([popen.stdout], [], [], START_S)[0], f"{argv[0]} did not start"
        line = popen.stdout.readline().decode()
        assert line, f"{argv[0]} ended before it was ready"
        network = os.open(f"/proc/{popen.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        held.callback(os.close, network)
        # Or the end would be that of everything on this machine.
        assert not is_in(os.getpid(), os.fstat(network))
        held.callback(end_all, network)
        yield Program(popen.pid, line, network)


@contextmanager
def entered(network: int) -> Iterator[None]:
    """This thread in another network, and so whatever it makes there: sockets, processes, threads.

    A socket belongs to the network that it was made in, wherever it is used.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.check(_setns(network, CLONE_NEWNET), "setns")
        try:
            yield
        finally:
            libc.check(_setns(before, CLONE_NEWNET), "setns")
    finally:
        os.close(before)


def end_all(network: int) -> None:
    """Kill what is in that network until there is nothing. Errors: AssertionError after END_S."""
    deadline = time.monotonic() + END_S
    while pids := inhabitants(network):
        assert time.monotonic() < deadline, f"{pids} can't be killed"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                end(pid, network)


def inhabitants(network: int) -> list[int]:
    """Processes in that network, without this one; those that have ended are in none."""
    namespace = os.fstat(network)
    return [
        int(name)
        for name in os.listdir("/proc")  # noqa: PTH208 - names only
        if name.isdigit() and int(name) != os.getpid() and is_in(int(name), namespace)
    ]


def is_in(pid: int, namespace: os.stat_result) -> bool:
    try:
        return os.path.samestat(Path(f"/proc/{pid}/ns/net").stat(), namespace)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # it has ended, or is another container's


def end(pid: int, network: int) -> None:
    """Kill one of them and wait for its end, never another that has got its number."""
    pidfd = os.pidfd_open(pid)
    try:
        if is_in(pid, os.fstat(network)):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], END_S)
    finally:
        os.close(pidfd)
