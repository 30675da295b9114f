"""The keeper: takes the VMM's handshake, starts the worker and starts it again, answers questions.

It holds copies of the userfaultfd and of the VMM's pidfds, so a worker that is lost can be
replaced: the next one is forked from it with everything in place. It serves no page itself.
"""

import contextlib
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from wrennd.pager import control, greeting
from wrennd.pager.board import Board
from wrennd.pager.handshake import Refused
from wrennd.pager.image import Image
from wrennd.pager.server import Fatal, Job, Server, Unreadable
from wrennd.pager.touched import WorkingSet

MAX_RESTARTS = 3
LOOK_EVERY_S = 5.0
STALLED_LOOKS = 6  # so many in a row without progress while a fault waits: 30 s
LAST_WORDS_S = 1.0  # for a worker whose VMM has ended, to end, too
STATES = ("ready", "serving")
# Exit codes of the keeper: the VMM is gone; the snapshot is broken; anything else went wrong and
# the VMM was killed. The worker's are the same, and any other means that it was lost.
GONE, LOST, BROKEN, FATAL = 0, 1, 3, 4

Request = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """has_balloon: a lost worker is not replaced. recorded: by the run before."""

    window: int
    has_balloon: bool
    handshake_timeout_s: float
    recorded: WorkingSet


class Stall:
    """Whether a worker has an unanswered fault and gets nothing done.

    Looks are counted, not seconds: a pager that was frozen with its host has not stalled.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._start_again()

    def _start_again(self) -> None:
        self._progress = self._board.progress()
        self._looks = 0
        self._next_look = time.monotonic() + LOOK_EVERY_S

    def is_seen(self) -> bool:
        """True once for each stall. To be called at least every LOOK_EVERY_S seconds."""
        if not self._board.pending or self._board.progress() != self._progress:
            self._start_again()
        elif time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_EVERY_S
            self._looks += 1
        if self._looks < STALLED_LOOKS:
            return False
        self._start_again()
        return True


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
        self._sockets = sockets
        self._vmm_connection: socket.socket | None = None
        self._job: Job | None = None  # from the handshake on
        self._vmm: list[int] = []  # pidfds
        self._children: dict[int, tuple[int, Callable[[int], object]]] = {}  # pidfds
        self._worker = -1  # one of them
        self._restarts = 0
        self._stall = Stall(self._board)
        self._waiting: list[tuple[socket.socket, Request]] = []
        self._connections = [sockets.starter]
        self._exit_code: int | None = None
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], object]] = {}
        self._watch(sockets.uffd.fileno(), self._take_vmm)
        self._watch(sockets.control.fileno(), self._take_asker)
        self._watch(sockets.starter.fileno(), lambda: self._take_request(sockets.starter))

    def run(self) -> int:
        """Serve until the VMM is gone; the exit code."""
        while self._exit_code is None:
            timeout = None if self._worker < 0 else LOOK_EVERY_S * 1000
            for fd, _ in self._poll.poll(timeout):
                if fd in self._handlers and self._exit_code is None:
                    self._handlers[fd]()
            if self._worker >= 0 and self._stall.is_seen():
                say("the worker got nothing done while a fault waited")
                os.kill(self._worker, signal.SIGKILL)
        return self._end_children(self._exit_code)

    def _end_children(self, code: int) -> int:
        """What to exit with: a worker that killed the VMM says why by its own exit code."""
        for pid, (pidfd, _) in self._children.items():
            if not select.select([pidfd], [], [], LAST_WORDS_S)[0]:
                os.kill(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if pid == self._worker and status in (BROKEN, FATAL):
                code = status
        return code

    def start_reader(self, work: Callable[[], object]) -> None:
        """Do `work`, which only helps, in a child, if there is anything to prefetch."""
        if 1 not in self.wanted:
            return
        with contextlib.suppress(OSError):
            self._start_child(work, lambda status: None)

    def _start_child(self, work: Callable[[], object], ended: Callable[[int], object]) -> int:
        """Fork a child that does `work`; its pid. `ended` is called with its wait status.

        Errors: OSError.
        """
        pid = os.fork()
        if pid == 0:
            try:
                self._sockets.uffd.close()
                self._sockets.control.close()
                for connection in self._connections:
                    connection.close()
                work()
            finally:
                os._exit(0)
        pidfd = os.pidfd_open(pid)
        self._children[pid] = pidfd, ended
        self._watch(pidfd, lambda: self._reap(pid))
        return pid

    def _reap(self, pid: int) -> None:
        pidfd, ended = self._children.pop(pid)
        self._unwatch(pidfd)
        os.close(pidfd)
        ended(os.waitpid(pid, 0)[1])

    def _watch(self, fd: int, handler: Callable[[], object]) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, select.POLLIN)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None):
            self._poll.unregister(fd)

    # The VMM

    def _take_vmm(self) -> None:
        """A connection to the socket of the handshake, and everything up to the first worker."""
        connection, _ = self._sockets.uffd.accept()
        peer = greeting.peer_pidfd(connection)
        if peer is None:
            say("a stranger connected, and was turned away")
            connection.close()
            return
        self._watch_vmm(peer)
        self._unwatch(self._sockets.uffd.fileno())
        self._sockets.uffd.close()
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
        self._tell_waiting()

    def _watch_vmm(self, pidfd: int) -> None:
        self._vmm.append(pidfd)
        self._watch(pidfd, self._vmm_ended)

    def _vmm_ended(self) -> None:
        """One process of it is enough: the others follow."""
        self._kill_vmm()
        self._exit_code = GONE

    def _kill_vmm(self) -> None:
        for pidfd in self._vmm:
            with contextlib.suppress(ProcessLookupError):
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

    # Control

    @property
    def _state(self) -> str:
        return "ready" if self._job is None else "serving"

    def _tell_waiting(self) -> None:
        """A state was reached."""
        waiting, self._waiting = self._waiting, []
        for connection, request in waiting:
            self._wait(connection, request)

    def _wait(self, connection: socket.socket, request: Request) -> None:
        if STATES.index(self._state) >= STATES.index(request["state"]):
            self._reply(connection, request, {"state": self._state})
        else:
            self._waiting.append((connection, request))

    def _take_asker(self) -> None:
        connection, _ = self._sockets.control.accept()
        self._connections.append(connection)
        self._watch(connection.fileno(), lambda: self._take_request(connection))

    def _take_request(self, connection: socket.socket) -> None:
        try:
            found = control.receive(connection)
        except (control.ControlError, OSError):
            found = None
        if found is None:
            self._drop(connection)
            return
        request, fd = found
        try:
            self._obey(connection, request, fd)
        finally:
            if fd >= 0:
                os.close(fd)

    def _obey(self, connection: socket.socket, request: Request, fd: int) -> None:
        match request.get("op"):
            case "status":
                self._reply(connection, request, self._status())
            case "wait" if request.get("state") in STATES:
                self._wait(connection, request)
            case "watch" if fd >= 0:
                self._watch_vmm(os.dup(fd))
                self._reply(connection, request, {})
            case "touched" if fd >= 0:
                self._reply(connection, request, {"pages": self._write_touched(fd)})
            case "end":
                self._kill_vmm()
                self._exit_code = GONE
                self._reply(connection, request, {})
            case _:
                self._drop(connection)

    def _status(self) -> dict[str, Any]:
        counts = self._board.counts()
        since = counts.deferred_since_ns
        return {
            "state": self._state,
            "worker": self._worker,
            "restarts": self._restarts,
            "pages": self._board.pages,
            "oldest_deferred_ms": (time.monotonic_ns() - since) // 1_000_000 if since else 0,
            **{
                name: getattr(counts, name)
                for name in (
                    "faults_read",
                    "faults_answered",
                    "deferred",
                    "installed",
                    "touched",
                    "removed",
                    "removals",
                    "prefetched",
                )
            },
        }

    def _write_touched(self, fd: int) -> int:
        """The set to prefetch next time; how many pages it has."""
        found = self._options.recorded.after(self._board.touched_flags())
        with open(fd, "wb", closefd=False) as file:
            file.write(found.encode())
        return found.flags.count(1)

    def _reply(self, connection: socket.socket, request: Request, message: dict[str, Any]) -> None:
        """`id` tells whoever gave up waiting for an earlier answer which one this is."""
        try:
            control.send(connection, message | {"id": request.get("id")})
        except OSError:
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self._waiting = [item for item in self._waiting if item[0] is not connection]
            self._unwatch(connection.fileno())
            connection.close()


def say(words: str) -> None:
    os.write(2, f"pager: {words}\n".encode())
