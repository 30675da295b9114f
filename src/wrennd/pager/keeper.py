"""The keeper: takes the VMM's handshake, starts the worker and starts it again, answers questions.

It holds copies of the userfaultfd and of the VMM's pidfds, so a worker that is lost can be
replaced: the next one is forked from it with everything in place. It serves no page itself.
"""

import contextlib
import dataclasses
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from wrennd.pager import greeting
from wrennd.pager.board import Board
from wrennd.pager.control import ControlError, Desk, Message
from wrennd.pager.handshake import Refused
from wrennd.pager.image import Image
from wrennd.pager.loop import Loop
from wrennd.pager.server import Job, Server
from wrennd.pager.stall import Stall
from wrennd.pager.touched import WorkingSet
from wrennd.pager.uffd import Fatal, Unreadable

MAX_RESTARTS = 3
LAST_WORDS_S = 1.0  # for a worker whose VMM has ended, to end, too
STATES = ("ready", "serving")
# Exit codes of the keeper: the VMM is gone; the snapshot is broken; anything else went wrong and
# the VMM was killed. The worker's are the same, and any other means that it was lost.
GONE, LOST, BROKEN, FATAL = 0, 1, 3, 4


@dataclass(frozen=True, kw_only=True)
class Options:
    """has_balloon: a lost worker is not replaced. recorded: by the run before."""

    window: int
    has_balloon: bool
    handshake_timeout_s: float
    stalled_after_s: float
    recorded: WorkingSet


@dataclass(frozen=True, kw_only=True)
class Sockets:
    """uffd: listening, for the VMM. control: listening, root's. starter: connected."""

    uffd: socket.socket
    control: socket.socket
    starter: socket.socket


class Keeper:
    """One VM's pager, from before the VMM connects until it is gone.

    Resources: owns the sockets given to it, the userfaultfd, the pidfds and the worker, and ends
    with the process.
    """

    def __init__(self, image: Image, options: Options, sockets: Sockets) -> None:
        self._image = image
        self._options = options
        self.wanted = options.recorded.to_prefetch()
        self._board = Board(image.pages)
        self._stall = Stall(self._board, options.stalled_after_s)
        self._uffd_socket = sockets.uffd
        self._vmm_connection: socket.socket | None = None
        self._job: Job | None = None  # from the handshake on
        self._vmm: list[int] = []  # pidfds
        self._children: dict[int, tuple[int, Callable[[int], object]]] = {}  # pidfds
        self._worker = -1  # one of them
        self._restarts = 0
        self._exit_code: int | None = None
        self._loop = Loop()
        self._loop.watch(sockets.uffd.fileno(), self._take_vmm)
        self._desk = Desk(self._loop, sockets.control, sockets.starter, self._answer)

    def run(self) -> int:
        """Serve until the VMM is gone; the exit code."""
        while self._exit_code is None:
            self._loop.turn(None if self._worker < 0 else self._stall.interval_s)
            if self._worker >= 0 and self._stall.is_seen():
                say("the worker got nothing done while a fault waited")
                os.kill(self._worker, signal.SIGKILL)
        return self._end_children(self._exit_code)

    def start_reader(self, work: Callable[[], object]) -> None:
        """Do `work`, which only helps, in a child, if there is anything to prefetch."""
        if 1 not in self.wanted:
            return
        with contextlib.suppress(OSError):
            self._start_child(work, lambda status: None)

    # The VMM

    def _take_vmm(self) -> None:
        """A connection to the socket of the handshake, and everything up to the first worker."""
        connection, _ = self._uffd_socket.accept()
        peer = greeting.peer_pidfd(connection)
        if peer is None:
            say("a stranger connected, and was turned away")
            connection.close()
            return
        self._watch_vmm(peer)
        self._loop.unwatch(self._uffd_socket.fileno())
        self._uffd_socket.close()
        # Never read again, and never closed: what its end would mean, the pidfd says better.
        self._vmm_connection = connection
        try:
            uffd, handshake = greeting.receive(
                connection, self._image.pages, peer, self._options.handshake_timeout_s
            )
            self._job = Job(
                uffd=uffd,
                handshake=handshake,
                image=self._image,
                board=self._board,
                window=self._options.window,
            )
            Server(self._job).take_over()
        except (Refused, OSError) as error:
            self._give_up(f"the VMM's handshake is refused: {error}")
            return
        self._start_worker(self._job, self.wanted)
        self._desk.remind()

    def _watch_vmm(self, pidfd: int) -> None:
        self._vmm.append(pidfd)
        self._loop.watch(pidfd, self._vmm_ended)

    def _vmm_ended(self) -> None:
        """One process of it is enough: the others follow."""
        self._kill_vmm()
        if self._exit_code is None:
            self._exit_code = GONE

    def _kill_vmm(self) -> None:
        """Those of its processes that are ours to kill: of another uid there should be none."""
        for pidfd in self._vmm:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _give_up(self, why: str) -> None:
        """The VMM first: it must not go on without its pages."""
        self._kill_vmm()
        say(why)
        self._exit_code = FATAL

    # The worker

    def _start_worker(self, job: Job, wanted: bytes) -> None:
        try:
            self._worker = self._start_child(
                lambda: self._be_worker(Server(job, wanted)),
                lambda status: self._worker_ended(job, os.waitstatus_to_exitcode(status)),
            )
        except OSError as error:
            self._give_up(f"no worker can be started: {error}")

    def _be_worker(self, server: Server) -> NoReturn:
        """In the child: serve, then end; an error that is no verdict is for the keeper to judge."""
        code = LOST
        try:
            if self._restarts:
                server.take_over()
            server.serve(self._vmm)
            code = GONE
        except Fatal as error:
            self._kill_vmm()
            say(str(error))
            code = BROKEN if isinstance(error, Unreadable) else FATAL
        finally:
            if code == LOST:
                say(traceback.format_exc())
            os._exit(code)

    def _worker_ended(self, job: Job, code: int) -> None:
        self._worker = -1
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if code in (GONE, BROKEN, FATAL):
            self._kill_vmm()
            self._exit_code = code
        # A removal that was read and not noted would give the guest back what it gave up.
        elif self._options.has_balloon or self._board.counts().removals:
            self._give_up(f"the worker was lost ({how}), and the guest has a balloon")
        elif self._restarts == MAX_RESTARTS:
            self._give_up(f"the worker was lost ({how}), as {MAX_RESTARTS} before it")
        else:
            say(f"the worker was lost ({how}); another one takes over")
            self._restarts += 1
            self._start_worker(job, b"")

    # Children

    def _start_child(self, work: Callable[[], object], ended: Callable[[int], object]) -> int:
        """Fork a child that does `work`; its pid. `ended` is called with its wait status.

        Errors: OSError.
        """
        pid = os.fork()
        if pid == 0:
            try:
                self._uffd_socket.close()
                self._desk.leave()
                work()
            finally:
                os._exit(0)
        pidfd = os.pidfd_open(pid)
        self._children[pid] = pidfd, ended
        self._loop.watch(pidfd, lambda: self._reap(pid))
        return pid

    def _reap(self, pid: int) -> None:
        pidfd, ended = self._children.pop(pid)
        self._loop.unwatch(pidfd)
        os.close(pidfd)
        ended(os.waitpid(pid, 0)[1])

    def _end_children(self, code: int) -> int:
        """What to exit with: a worker that killed the VMM says why by its own exit code."""
        for pid, (pidfd, _) in self._children.items():
            if not select.select([pidfd], [], [], LAST_WORDS_S)[0]:
                os.kill(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if pid == self._worker and status in (BROKEN, FATAL):
                code = status
        return code

    # Questions

    def _answer(self, request: Message, fd: int) -> Message | None:
        match request.get("op"):
            case "status":
                return self._status()
            case "wait" if request.get("state") in STATES:
                has_come = STATES.index(self._state) >= STATES.index(request["state"])
                return {"state": self._state} if has_come else None
            case "watch" if fd >= 0:
                self._watch_vmm(os.dup(fd))
                return {}
            case "touched" if fd >= 0:
                return {"pages": self._write_touched(fd)}
            case "end":
                self._vmm_ended()
                return {}
        raise ControlError("no such request")

    @property
    def _state(self) -> str:
        return "ready" if self._job is None else "serving"

    def _status(self) -> Message:
        counts = dataclasses.asdict(self._board.counts())
        since = counts.pop("deferred_since_ns")
        return counts | {
            "state": self._state,
            "worker": self._worker,
            "restarts": self._restarts,
            "pages": self._board.pages,
            "oldest_deferred_ms": (time.monotonic_ns() - since) // 1_000_000 if since else 0,
        }

    def _write_touched(self, fd: int) -> int:
        """The set to prefetch next time; how many pages it has."""
        found = self._options.recorded.after(self._board.touched_flags())
        with open(fd, "wb", closefd=False) as file:
            file.write(found.encode())
        return found.flags.count(1)


def say(words: str) -> None:
    os.write(2, f"pager: {words}\n".encode())
