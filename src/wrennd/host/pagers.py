"""Pagers of this host: started, asked, found again, ended. What they do is in `pager/`.

A pager is two processes in a session of its own, named by its keeper's pid and start time. In the
sandbox's run directory lie `uffd.sock` for its VMM, `pager.sock` for us, and `pager.log`. What
`start` puts on the caller's ExitStack are callbacks: a stack that is dropped ends nothing.
"""

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded, Error, SnapshotBroken, VmmFailed
from wrennd.linux import confined, process
from wrennd.linux.process import Adopted, Process
from wrennd.pager import control
from wrennd.pager.keeper import BROKEN
from wrennd.snapshot.reader import Snapshot
from wrennd.vmm import console
from wrennd.vmm.program import interpreter

UFFD_SOCKET, CONTROL_SOCKET, LOG = "uffd.sock", "pager.sock", "pager.log"
WINDOW_PAGES = 64
HANDSHAKE_TIMEOUT_S = 10.0
STALLED_AFTER_S = 30.0  # far beyond any disk's answer: each time a worker is replaced counts
ANSWER_TIMEOUT_S = 30.0  # the keeper does nothing else, but a busy host may keep it waiting
END_TIMEOUT_S = 20.0
NICE = -20  # a guest waits for it; real-time classes were slower where measured
MAX_FILE_BYTES = 64 << 20  # of its log and of a recorded working set (32 KiB for a GiB)
_UCRED = struct.Struct("3i")  # pid, uid, gid


@dataclass(frozen=True, kw_only=True)
class Source:
    """The snapshot that is served. header: encoded; memfiles: one for each of its builds, in its
    order. touched: the recorded working set; None, or no such file: nothing is prefetched."""

    header: bytes
    memfiles: tuple[Path, ...]
    touched: Path | None = None

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        return cls(
            header=snapshot.header.encode(),
            memfiles=snapshot.memfiles,
            touched=snapshot.touched,
        )


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a pager is put, and how it serves. Owns nothing.

    run_dir: where the sockets are made. uid: the VMM's, and so the pager's. cgroup_procs: the file
    to join, if there is a cgroup. dies_with_parent: as `Cell`'s. has_balloon: a pager that is lost
    can't be replaced then.
    """

    run_dir: Path
    uid: int
    cgroup_procs: Path | None = None
    dies_with_parent: bool
    has_balloon: bool
    window_pages: int = WINDOW_PAGES
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S
    stalled_after_s: float = STALLED_AFTER_S


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What a pager has done. Counts of pages but for faults, removals (events) and restarts.

    worker: its pid, -1 when there is none. oldest_deferred_ms: how long the fault waits that was
    put off first.
    """

    state: str
    worker: int
    restarts: int
    pages: int
    faults_read: int
    faults_answered: int
    deferred: int
    oldest_deferred_ms: int
    installed: int
    touched: int
    removed: int
    removals: int
    prefetched: int

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Self:
        return cls(**{name: answer[name] for name in cls.__dataclass_fields__})


class Pager:
    """A pager that runs, or ran. Not shared between threads.

    Resources: owns a connection to it and, unless detached, the processes and their sockets.
    """

    def __init__(self, keeper: Process | Adopted, connection: socket.socket, run_dir: Path) -> None:
        self.process = keeper
        self.run_dir = run_dir
        self._connection = connection
        self._asked = 0
        self._is_ours = True

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def start_time(self) -> int:
        return self.process.start_time

    @property
    def pidfd(self) -> int:
        """Readable once it has ended."""
        return self.process.pidfd

    def wait_ready(self, deadline: Deadline) -> None:
        """Wait until the snapshot's files are mapped: load nothing into a VMM before.

        Errors: SnapshotBroken with the reason; VmmFailed; DeadlineExceeded.
        """
        self._ask({"op": "wait", "state": "ready"}, deadline)

    def wait_serving(self, deadline: Deadline) -> None:
        """Wait until the VMM's handshake was taken. Errors: VmmFailed; DeadlineExceeded."""
        self._ask({"op": "wait", "state": "serving"}, deadline)

    def watch(self, vmm_pidfd: int) -> None:
        """Tie it to a VMM: it kills it when it fails, and ends when it ends. Errors: VmmFailed."""
        self._ask({"op": "watch"}, Deadline.after(ANSWER_TIMEOUT_S), vmm_pidfd)

    def stats(self) -> Stats:
        """Errors: SnapshotBroken, VmmFailed when it has ended, and why."""
        return Stats.of(self._ask({"op": "status"}, Deadline.after(ANSWER_TIMEOUT_S)))

    def touched(self) -> bytes:
        """The working set so far, as a file for the next time. Errors: VmmFailed."""
        fd = os.memfd_create("touched", os.MFD_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            self._ask({"op": "touched"}, Deadline.after(ANSWER_TIMEOUT_S), fd)
            file.seek(0)
            return file.read()

    def describe_end(self) -> str:
        """One clause on how it ended, or that it has not."""
        if isinstance(self.process, Process):
            code = self.process.exit_code
            how = "is still running" if code is None else f"ended with exit code {code}"
        else:
            how = "has ended" if self.process.has_ended else "is still running"
        words = "; ".join(console.tail(self.run_dir / LOG, 3))
        return f"the pager (pid {self.pid}) {how}" + (f" ({words})" if words else "")

    def detach(self) -> None:
        """Let go of it: it serves on. May be called twice."""
        self._is_ours = False
        self._connection.close()
        self.process.detach()

    def close(self) -> None:
        """End the VMM if it still lives, then the pager. May be called twice."""
        if not self._is_ours:
            return
        deadline = Deadline.after(END_TIMEOUT_S)
        with contextlib.suppress(Error):
            self._ask({"op": "end"}, deadline)
        self.process.wait(deadline)
        if isinstance(self.process, Process):
            self.process.close()
        elif not self.process.has_ended:
            os.killpg(self.pid, signal.SIGKILL)
            self.process.wait(Deadline.after(END_TIMEOUT_S))
        for name in (UFFD_SOCKET, CONTROL_SOCKET, LOG):
            (self.run_dir / name).unlink(missing_ok=True)
        self.detach()

    def _ask(self, request: dict[str, Any], deadline: Deadline, fd: int = -1) -> dict[str, Any]:
        self._asked += 1
        try:
            control.send(self._connection, request | {"id": self._asked}, None if fd < 0 else fd)
            while True:
                self._connection.settimeout(max(deadline.remaining_s, 0.001))
                found = control.receive(self._connection)
                if found is None:
                    raise ConnectionResetError
                if found[0].get("id") == self._asked:
                    return found[0]
        except TimeoutError:
            raise DeadlineExceeded(f"the pager did not answer {request['op']!r} in time") from None
        except OSError as error:
            raise self._failure() from error

    def _failure(self) -> VmmFailed | SnapshotBroken:
        """It does not talk to us any more: why."""
        self.process.wait(Deadline.after(END_TIMEOUT_S))
        if self.process.exit_code == BROKEN:
            return SnapshotBroken(self.describe_end())
        return VmmFailed(self.describe_end())


def start(held: ExitStack, source: Source, place: Place) -> Pager:
    """A pager whose socket listens; its process gets ready meanwhile. What ends it is on `held`.

    Errors: SnapshotBroken when a file is missing; OSError.
    """
    with ExitStack() as made, ExitStack() as opened:
        uffd_socket = opened.enter_context(_bound(place.run_dir / UFFD_SOCKET, socket.SOCK_STREAM))
        made.callback((place.run_dir / UFFD_SOCKET).unlink, missing_ok=True)
        os.chown(place.run_dir / UFFD_SOCKET, place.uid, place.uid)
        uffd_socket.listen(1)
        control_path = place.run_dir / CONTROL_SOCKET
        control_socket = opened.enter_context(_bound(control_path, socket.SOCK_SEQPACKET))
        made.callback(control_path.unlink, missing_ok=True)
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        opened.enter_context(its)
        made.enter_context(ours)
        inputs = {
            "uffd_socket": uffd_socket.fileno(),
            "control_socket": control_socket.fileno(),
            "starter": its.fileno(),
            "header": _memory_file(opened, source.header),
            "memfiles": [_open(opened, path) for path in source.memfiles],
            "touched": _open_hint(opened, source.touched),
            "window": place.window_pages,
            "has_balloon": place.has_balloon,
            "handshake_timeout_s": place.handshake_timeout_s,
            "stalled_after_s": place.stalled_after_s,
        }
        log = _log(opened, place.run_dir / LOG)
        made.callback((place.run_dir / LOG).unlink, missing_ok=True)
        child = process.spawn(
            confined.argv(interpreter(), _describe(place, inputs)),
            stderr=log,
            pass_fds=_descriptors(inputs),
        )
        made.pop_all()
    pager = Pager(child, ours, place.run_dir)
    held.callback(pager.close)
    hurry(pager.pid)
    return pager


@contextmanager
def serve(source: Source, place: Place) -> Iterator[Pager]:
    """As `start`, for the length of a block."""
    with ExitStack() as held:
        yield start(held, source, place)


def adopt(pid: int, start_time: int, run_dir: Path) -> Pager:
    """A pager that another process of ours started. The caller detaches from it, or closes it.

    Errors: ProcessLookupError when its keeper has ended or can't be reached: the guest may hang
    at its next missing page, so end it.
    """
    with ExitStack() as held:
        keeper = Adopted(pid, start_time)
        held.callback(keeper.detach)
        connection = held.enter_context(
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        )
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            connection.connect(os.fspath(run_dir / CONTROL_SOCKET))
        except OSError as error:
            raise ProcessLookupError(f"pager {pid} can't be reached: {error}") from error
        # The directory is the VMM's: it may have put a socket of its own there.
        size = _UCRED.size
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        if _UCRED.unpack(peer)[0] != pid:
            raise ProcessLookupError(f"{run_dir / CONTROL_SOCKET} is not pager {pid}'s")
        held.pop_all()
    return Pager(keeper, connection, run_dir)


def hurry(pid: int) -> None:
    """Have it run before others, where we may; else it serves at our own priority.

    Where sessions share the CPU as groups (sched(7), autogroup), nice counts within one only.
    """
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(NICE))


def _describe(place: Place, inputs: dict[str, Any]) -> dict[str, Any]:
    """What `linux/confined.py` is told: an empty root, no network."""
    return {
        "module": "wrennd.pager.__main__",
        "inputs": inputs,
        "uid": place.uid,
        "netns": None,
        "proc": False,
        "cgroup_procs": None if place.cgroup_procs is None else os.fspath(place.cgroup_procs),
        "binds": [],
        "dirs": [],
        "links": [],
        "nodes": [],
        "limits": {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": MAX_FILE_BYTES},
        "parent": os.getpid() if place.dies_with_parent else None,
        "hostname": "pager",
    }


def _descriptors(inputs: dict[str, Any]) -> list[int]:
    names = ("uffd_socket", "control_socket", "starter", "header", "touched")
    return [fd for fd in (*(inputs[name] for name in names), *inputs["memfiles"]) if fd >= 0]


def _bound(path: Path, kind: socket.SocketKind) -> socket.socket:
    """A socket that nobody but root can connect to; not listening yet."""
    made = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    try:
        made.bind(os.fspath(path))
        path.chmod(0o600)
    except BaseException:
        made.close()
        raise
    return made


def _memory_file(opened: ExitStack, data: bytes) -> int:
    fd = os.memfd_create("header", os.MFD_CLOEXEC)
    opened.callback(os.close, fd)
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _open(opened: ExitStack, path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise SnapshotBroken(f"{path} is missing") from None
    except OSError as error:
        raise SnapshotBroken(f"{path} can't be opened: {error.strerror}") from error
    opened.callback(os.close, fd)
    return fd


def _open_hint(opened: ExitStack, path: Path | None) -> int:
    if path is None:
        return -1
    try:
        return _open(opened, path)
    except SnapshotBroken:
        return -1


def _log(opened: ExitStack, path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    opened.callback(os.close, fd)
    return fd
