"""The one door for processes: argument lists, clean environment, no shell, pidfds.

`run` is for tools that end by themselves; `spawn` for those that are held. Namespaces, mounts and
uids are not set here but by the exec wrapper `linux/confine.py`, which `vmm/launch.py` spawns.
"""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn, Self

from wrennd.core.deadline import Deadline

CLEAN_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
# What tools make for a guest must not depend on the umask of whoever called us.
CLEAN_UMASK = 0o022


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What a tool left: its exit status and both outputs (text, undecodable bytes replaced)."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class CommandFailed(OSError):
    """A tool exited with something other than 0; the last lines of its stderr are in the text."""

    def __init__(self, completed: Completed) -> None:
        self.completed = completed
        tail = " | ".join(completed.stderr.strip().splitlines()[-4:])
        super().__init__(f"{completed.argv[0]} exited with {completed.returncode}: {tail}")


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout_s: float,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
) -> Completed:
    """Run a tool to its end and capture both outputs.

    Errors: CommandFailed (unless `check` is false); FileNotFoundError when there is no such
    program; TimeoutError after `timeout_s`, with the whole process group killed.
    """
    args = tuple(os.fspath(a) for a in argv)
    with subprocess.Popen(
        args,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(CLEAN_ENVIRONMENT if env is None else env),
        cwd=cwd,
        text=True,
        errors="replace",
        start_new_session=True,
        umask=CLEAN_UMASK,
    ) as popen:
        try:
            out, err = popen.communicate(stdin, timeout=timeout_s)
        except BaseException as error:
            _kill_group(popen.pid)
            popen.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise TimeoutError(f"{args[0]} did not end within {timeout_s:g} s") from None
            raise
    done = Completed(argv=args, returncode=popen.returncode, stdout=out, stderr=err)
    if check and done.returncode != 0:
        raise CommandFailed(done)
    return done


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


class Process:
    """A child in a session of its own, watched by pidfd. Closing kills it and its session's group.

    Resources: owns the pidfd and the child; `close()` may be called twice.
    """

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        self._popen = popen
        self.pid = popen.pid
        # 0, which names no process, where there is no /proc: in the root of a confined VMM.
        self.start_time = start_time(popen.pid) if Path("/proc/self").exists() else 0
        self.pidfd = os.pidfd_open(popen.pid)

    def wait(self, deadline: Deadline) -> int | None:
        """The exit code (negative: the signal), or None when the deadline comes first."""
        if self.pidfd >= 0 and not select.select([self.pidfd], [], [], deadline.remaining_s)[0]:
            return None
        return self._popen.wait()

    @property
    def exit_code(self) -> int | None:
        """The exit code so far: None while it runs."""
        return self._popen.poll()

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    @property
    def stdin(self) -> IO[bytes] | None:
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        return self._popen.stdout

    @property
    def stderr(self) -> IO[bytes] | None:
        return self._popen.stderr

    def signal(self, number: int) -> None:
        """Signal the child itself; nothing happens when it is gone."""
        if self._popen.poll() is None:
            signal.pidfd_send_signal(self.pidfd, number)

    def detach(self) -> None:
        """Let it live on without us: only our descriptors are closed. May be called twice."""
        if self.pidfd < 0:
            return
        if self._popen.poll() is None:
            # As if it had been waited for: Popen would complain that it was not. Whoever kills it
            # later, in this process, reaps it (`kill_and_wait`); else it becomes init's.
            self._popen.returncode = 0
        self._close_descriptors()

    def close(self) -> None:
        if self.pidfd < 0:
            return
        if self._popen.poll() is None:
            _kill_group(self.pid)
            self._popen.kill()
            self._popen.wait()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                stream.close()
        os.close(self.pidfd)
        self.pidfd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Adopted:
    """A process of ours that is not our child, watched by pidfd. Owns the pidfd, not the process.

    Errors: ProcessLookupError when that very process has ended.
    """

    exit_code = None  # only its parent learns it

    def __init__(self, pid: int, started: int) -> None:
        self.pid = pid
        self.start_time = started
        self.pidfd = os.pidfd_open(pid)
        if not is_alive(pid, started):  # the pid was another's by the time it was opened
            self.detach()
            raise ProcessLookupError(f"process {pid} has ended")

    @property
    def has_ended(self) -> bool:
        return bool(select.select([self.pidfd], [], [], 0)[0])

    def wait(self, deadline: Deadline) -> int | None:
        """Returns when it has ended or the deadline comes; always None (see `has_ended`)."""
        select.select([self.pidfd], [], [], deadline.remaining_s)
        return None

    def signal(self, number: int) -> None:
        """Nothing happens when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def detach(self) -> None:
        """May be called twice."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def spawn(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> Process:
    """Start a program in a session of its own. Streams not given are /dev/null.

    A death signal asked for by the child is tied to the thread that calls this: spawn such
    children from a thread that lives as long as they may.
    """
    null = subprocess.DEVNULL
    return Process(
        subprocess.Popen(
            [os.fspath(a) for a in argv],
            env=dict(CLEAN_ENVIRONMENT if env is None else env),
            stdin=null if stdin is None else stdin,
            stdout=null if stdout is None else stdout,
            stderr=null if stderr is None else stderr,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    )


PIPE = subprocess.PIPE


def start_time(pid: int) -> int:
    """Clock ticks since boot at which `pid` started: with the pid it names a process for ever.

    Errors: ProcessLookupError when there is none.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether that very process (not one that got its pid later) exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    fields = stat[stat.rindex(b")") + 2 :].split()
    return int(fields[19]) == started and fields[0] != b"Z"


def of_uid(uid: int) -> list[tuple[int, int]]:
    """Pid and start time of every process with that effective uid."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                # Not the directory's owner: that is root for one that changed its uid.
                if _effective_uid((entry / "status").read_text()) == uid:
                    found.append((int(entry.name), start_time(int(entry.name))))
    return found


def _effective_uid(status: str) -> int:
    return next(int(line.split()[2]) for line in status.splitlines() if line.startswith("Uid:"))


def reap(pid: int, started: int) -> None:
    """Take the exit status of that very process, if it has ended and was started by this one."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        if start_time(pid) == started and not is_alive(pid, started):
            os.waitpid(pid, os.WNOHANG)


def kill_and_wait(pid: int, started: int, number: int, deadline: Deadline) -> None:
    """Signal that very process and wait until it has ended.

    Errors: TimeoutError when it has not by the deadline.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not is_alive(pid, started):  # the pid was another's by the time it was opened
            return
        signal.pidfd_send_signal(pidfd, number)
        if not select.select([pidfd], [], [], deadline.remaining_s)[0]:
            raise TimeoutError(f"process {pid} did not end after signal {number}")
        reap(pid, started)
    finally:
        os.close(pidfd)


class Guard:
    """A forked child that runs `undo` if this process dies without saying `dismiss`.

    Fork it before there are threads, locks or anything else that it must not share. It is in a
    session of its own (a terminal's signals pass it by) and keeps no descriptor but its pipe.
    """

    def __init__(self, undo: Callable[[], None]) -> None:
        told, self._tell = os.pipe2(os.O_CLOEXEC)
        parent = os.pidfd_open(os.getpid())
        self._pid = os.fork()
        if self._pid == 0:
            _guard(told, parent, undo)
        os.close(told)
        os.close(parent)

    def dismiss(self) -> None:
        """End the guard and wait for it. Safe to call twice."""
        if self._tell < 0:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(self._tell, b".")
        os.close(self._tell)
        self._tell = -1
        os.waitpid(self._pid, 0)


def _guard(told: int, parent: int, undo: Callable[[], None]) -> NoReturn:
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        _close_all_but(told, parent)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if os.read(told, 1) == b"":
            # A dying process closes its descriptors one after another: only when it has ended
            # are its locks free, too.
            select.select([parent], [], [])
            undo()
    finally:
        os._exit(0)


def _close_all_but(*kept: int) -> None:
    first = 3
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
