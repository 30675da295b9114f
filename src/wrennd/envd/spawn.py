"""A command becomes a process: rights, directory, descriptors, then exec.

envd has one thread, so a plain fork is safe, and the child may run Python until it execs. What
fails there comes back over a pipe that a successful exec closes; the parent never waits for it,
since a directory or program on a hung filesystem would stop everybody.
"""

from __future__ import annotations

import errno
import os
import sys
from fcntl import ioctl

from wrennd.envd.connect import RpcError
from wrennd.envd.interpreter import reset_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.users import Account

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Commands are to die before envd when memory runs out.
OOM_SCORE_ADJ = b"100"
TIOCSCTTY = 0x540E
UMASK = 0o022
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


class Launch:
    """What to run, where, and as whom. Everything in it was checked by `prepare`."""

    __slots__ = (
        "account",
        "arguments",
        "cgroup_procs",
        "command",
        "cwd",
        "env",
        "groups",
        "is_cwd_given",
        "own_env",
    )

    def __init__(self, command: str, arguments: list[str], env: dict[str, str]) -> None:
        self.command = command
        self.arguments = arguments
        self.env = env
        self.own_env: dict[str, str] = {}
        self.cwd = "/"
        self.is_cwd_given = False
        # The file by which the process enters its cgroup; empty where there are none.
        self.cgroup_procs = ""
        self.account: Account | None = None
        self.groups: list[int] = []

    @property
    def candidates(self) -> list[str]:
        """The files to try, in order, as a shell would look for the command."""
        if "/" in self.command:
            return [self.command]
        path = self.env.get("PATH", DEFAULT_PATH)
        return [os.path.join(folder or ".", self.command) for folder in path.split(":")]


def place(launch: Launch, cwd: str, account: Account) -> None:
    """Set the directory: `~` and relative paths begin at the user's home."""
    launch.is_cwd_given = bool(cwd)
    if cwd == "~" or cwd.startswith("~/"):
        cwd = account.home + cwd[1:]
    launch.cwd = os.path.join(account.home, cwd) if cwd else account.home
    launch.account = account


def fork(launch: Launch, stdio: tuple[int, int, int], *, has_terminal: bool) -> tuple[int, int]:
    """Start the child; returns its pid and the descriptor that its failure is reported on.

    That descriptor is at its end, with nothing read, once the command runs; the caller owns it.
    Errors: OSError when there are no more processes or descriptors.
    """
    report, report_end = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(report)
        raise
    else:
        if pid == 0:
            _become(launch, stdio, report_end, has_terminal=has_terminal)
    finally:
        os.close(report_end)
    os.set_blocking(report, False)
    return pid, report


def _become(
    launch: Launch, stdio: tuple[int, int, int], report: int, *, has_terminal: bool
) -> None:
    """In the child; never returns."""
    stage = "setup"
    try:
        os.setsid()
        _join(launch.cgroup_procs)
        for number, fd in enumerate(stdio):
            os.dup2(fd, number)
        if has_terminal:
            ioctl(0, TIOCSCTTY, 0)
        _reset()
        stage = "user"
        _take_rights(launch)
        stage = "cwd"
        _enter(launch)
        stage = "exec"
        reset_signals()
        _exec(launch)
    except OSError as error:
        os.write(report, f"{stage} {error.errno}".encode())
    except BaseException:  # noqa: BLE001 - nothing of the parent may run in the child
        sys.excepthook(*sys.exc_info())
        os.write(report, f"{stage} {errno.EINVAL}".encode())
    finally:
        os._exit(127)


def _join(cgroup_procs: str) -> None:
    """First of all: a frozen group stops the child right here, before it does anything."""
    if cgroup_procs:
        fd = os.open(cgroup_procs, os.O_WRONLY)
        os.write(fd, b"0")
        os.close(fd)


def _reset() -> None:
    """Undo what the guest's init gave to envd and not to commands."""
    os.umask(UMASK)
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(fd, OOM_SCORE_ADJ)
    os.close(fd)
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def _take_rights(launch: Launch) -> None:
    account = launch.account
    assert account is not None
    if os.geteuid() == 0:
        os.setgroups(launch.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)


def _enter(launch: Launch) -> None:
    try:
        os.chdir(launch.cwd)
    except OSError:
        # A home that doesn't exist must not keep its user from running anything.
        if launch.is_cwd_given:
            raise
        os.chdir("/")


def _exec(launch: Launch) -> None:
    """Errors: the most telling OSError of all candidates: any other beats 'no such file'."""
    argv = [launch.command, *launch.arguments]
    failure = FileNotFoundError(errno.ENOENT, launch.command)
    for path in launch.candidates:
        try:
            os.execve(path, argv, launch.env)
        except (FileNotFoundError, NotADirectoryError):
            # A script whose interpreter is missing looks the same, but is there.
            if os.access(path, os.F_OK):
                raise OSError(errno.ENOEXEC, path) from None
        except PermissionError as error:
            # On PATH, a directory that the user may not search says nothing about the command.
            if "/" in launch.command or os.path.isfile(path):
                failure = error  # type: ignore[assignment]
    raise failure


def explain(launch: Launch, report: bytes) -> RpcError:
    """What the child reported, as the caller is told it.

    not_found and permission_denied are about the command and nothing else, so that a caller can
    tell 127 from 126 by code.
    """
    stage, _, number_text = report.decode().partition(" ")
    number = int(number_text)
    reason = os.strerror(number)
    if number in _EXHAUSTED:
        return RpcError("resource_exhausted", f"no process can be started: {reason}")
    if stage == "cwd":
        if number == errno.ENOENT:
            return RpcError("invalid_argument", f"cwd '{launch.cwd}' does not exist")
        if number == errno.ENOTDIR:
            return RpcError("invalid_argument", f"cwd '{launch.cwd}' is not a directory")
        return RpcError("invalid_argument", f"cwd '{launch.cwd}' can't be entered: {reason}")
    if stage == "user":
        return RpcError("unauthenticated", f"envd can't act for the user: {reason}")
    if stage == "exec":
        return _explain_exec(launch, number, reason)
    return RpcError("internal", f"the process could not be set up: {reason}")


def _explain_exec(launch: Launch, number: int, reason: str) -> RpcError:
    name = f"command '{launch.command}'"
    if number == errno.ENOENT:
        return RpcError("not_found", f"{name} was not found")
    if number == errno.E2BIG:
        return RpcError("invalid_argument", "arguments and environment are too long")
    return RpcError("permission_denied", f"{name} can't be executed: {reason}")
