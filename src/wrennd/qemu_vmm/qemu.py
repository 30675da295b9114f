"""One QEMU process: started stopped, steered over QMP, its output drained, its end noticed.

*Concurrency.* Single-threaded. All its descriptors hang on one epoll, which the server's loop
watches as one (`fileno`) and turns with `pump(0)`; a command that waits for its answer turns it
too, so that the guest's console never stands still.

*Resources.* Owns the process and its ends of the sockets; `close` kills QEMU. QEMU also dies with
this process, by the death signal that `ram_shim.c` sets.
"""

import errno
import os
import selectors
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, TypeVar

from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded
from wrennd.linux import process
from wrennd.qemu_vmm.machine import Machine
from wrennd.qemu_vmm.memory import GuestMemory, Plan
from wrennd.qemu_vmm.qmp import Decoder, Event, Greeting, QmpBroken, QmpRefused, Reply, encode

READ_SIZE = 64 << 10
STDERR_LIMIT = 64 << 10  # of QEMU's own words; a guest that makes it complain can't fill a log
COMMAND_TIMEOUT_S = 30.0
EVENTS = ("STOP", "SHUTDOWN", "MIGRATION")  # those that somebody looks at
MAX_EVENTS = 16  # kept until somebody does; a QEMU gone wild may send any number
T = TypeVar("T")


class QemuEnded(Exception):
    """QEMU ended while it was needed; the text says how, with its last words."""


# Any of these: this QEMU is of no use any more (or never was).
FAILURES = (QemuEnded, QmpBroken, QmpRefused, DeadlineExceeded, OSError)


class Qemu:
    """A QEMU whose guest exists but has not run yet, once `start` returns."""

    def __init__(
        self,
        child: process.Process,
        qmp: socket.socket,
        console: socket.socket,
        plan: Plan,
        on_console: Callable[[bytes], None],
        on_words: Callable[[str], None],
    ) -> None:
        self._child, self._qmp, self._console, self._plan = child, qmp, console, plan
        self._on_console, self._on_words = on_console, on_words
        self._decoder = Decoder()
        self._asked = 0
        self._reply: Reply | None = None
        self._greeting: Greeting | None = None
        self._memory: GuestMemory | None = None
        self._words = b""
        self._words_left = STDERR_LIMIT
        self._last_words: list[str] = []
        self.is_ended = False
        self.events: list[Event] = []
        self._selector = selectors.EpollSelector()
        assert child.stderr is not None
        self._stderr_fd = child.stderr.fileno()
        for fd, handle in (
            (qmp.fileno(), self._read_qmp),
            (console.fileno(), self._read_console),
            (self._stderr_fd, self._read_stderr),
            (child.pidfd, self._see_end),
            (plan.shim.fileno(), self._attach_memory),
        ):
            if fd not in (child.pidfd, plan.shim.fileno()):
                os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ, handle)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def memory(self) -> GuestMemory:
        assert self._memory is not None, "there is one once `start` has returned"
        return self._memory

    @property
    def version(self) -> tuple[int, int, int]:
        assert self._greeting is not None, "it has come once `start` has returned"
        return self._greeting.version

    def fileno(self) -> int:
        """Readable when `pump` has something to do."""
        return self._selector.fileno()

    @property
    def exit_code(self) -> int | None:
        """Negative: the signal."""
        return self._child.exit_code

    def describe_end(self) -> str:
        code = self._child.wait(Deadline.after(1.0))
        if code is None:
            how = "QEMU is in an unknown state"
        elif code < 0:
            how = f"QEMU was killed by signal {-code}"
        else:
            how = f"QEMU exited with code {code}"
        return ": ".join([how, *self._last_words[-3:]])

    # Turning the wheel

    def pump(self, timeout_s: float) -> None:
        """Handle what has come, once; wait for it up to `timeout_s`.

        Errors: QmpBroken, after which the process must be closed.
        """
        for key, _ in self._selector.select(timeout_s):
            key.data()

    def drain(self) -> None:
        """After the end: take everything that QEMU had still written."""
        while len(self._selector.get_map()) > 0:
            self.pump(1.0)

    def execute(
        self,
        command: str,
        fds: Sequence[int] = (),
        *,
        deadline: Deadline | None = None,
        **arguments: object,
    ) -> Any:
        """Run a QMP command, by `deadline` (default: COMMAND_TIMEOUT_S); `fds` go along with it,
        as copies.

        Errors: QmpRefused, QmpBroken, QemuEnded, DeadlineExceeded.
        """
        deadline = deadline or Deadline.after(COMMAND_TIMEOUT_S)
        self._asked += 1
        self._reply = None
        self._send(encode(command, arguments, self._asked), fds)
        reply = self._pump_until(lambda: self._reply, deadline, f"QEMU's answer to {command}")
        if reply.error:
            raise QmpRefused(reply.error)
        return reply.value

    def wait_for_event(
        self, name: str, is_it: Callable[[dict[str, Any]], bool], deadline: Deadline, what: str
    ) -> Event:
        """The next such event, which nobody else gets to see any more. Errors: as `execute`."""

        def look() -> Event | None:
            for event in self.events:
                if event.name == name and is_it(event.data):
                    self.events = [other for other in self.events if other.name != name]
                    return event
            return None

        return self._pump_until(look, deadline, what)

    def _pump_until(self, look: Callable[[], T | None], deadline: Deadline, what: str) -> T:
        while (found := look()) is None:
            if self.is_ended:
                self.drain()
                raise QemuEnded(self.describe_end())
            deadline.check(what)
            self.pump(deadline.remaining_s)
        return found

    def _send(self, data: bytes, fds: Sequence[int]) -> None:
        """Commands are short and answered one by one: they fit the socket's buffer."""
        try:
            if fds:
                socket.send_fds(self._qmp, [data], fds)
            else:
                self._qmp.send(data)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                raise QmpBroken("QEMU does not read its monitor") from None
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise

    def _wait_until_ready(self) -> None:
        deadline = Deadline.after(COMMAND_TIMEOUT_S)
        self._pump_until(lambda: self._greeting, deadline, "QEMU's start")
        self.execute("qmp_capabilities")
        if self._memory is None:
            raise QmpBroken("the RAM shim did not find the guest's memory in this QEMU")

    # What comes in

    def _receive(self, fd: int) -> bytes:
        """What is there; at the end (empty) the descriptor is not looked at any more."""
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return b""
        except ConnectionResetError:
            data = b""
        if not data:
            self._selector.unregister(fd)
        return data

    def _read_qmp(self) -> None:
        for message in self._decoder.feed(self._receive(self._qmp.fileno())):
            match message:
                case Greeting():
                    self._greeting = message
                case Reply() if message.id == self._asked:
                    self._reply = message
                case Event() if message.name in EVENTS:
                    self.events = [*self.events[-MAX_EVENTS:], message]

    def _read_console(self) -> None:
        if data := self._receive(self._console.fileno()):
            self._on_console(data)

    def _read_stderr(self) -> None:
        data = self._receive(self._stderr_fd)
        *lines, self._words = (self._words + data).split(b"\n")
        if not data or len(self._words) > READ_SIZE:
            lines, self._words = [*lines, self._words], b""
        for line in lines:
            text = line.decode(errors="replace").strip()
            if text and len(text) <= self._words_left:
                self._words_left -= len(text)
                self._last_words = [*self._last_words[-3:], text[:500]]
                self._on_words(text)

    def _attach_memory(self) -> None:
        """QEMU waits until this is done. When it ended instead, before its report or after it,
        others see that, and say how."""
        self._selector.unregister(self._plan.shim)
        try:
            self._memory = self._plan.attach(self.pid)
        except (ConnectionAbortedError, BrokenPipeError, ProcessLookupError):
            return

    def _see_end(self) -> None:
        self._selector.unregister(self._child.pidfd)
        self.is_ended = True

    def close(self) -> None:
        """Kill QEMU if it lives. May be called twice."""
        with ExitStack() as steps:
            if self._memory is not None:
                steps.callback(self._memory.close)
            steps.callback(self._selector.close)
            steps.callback(self._qmp.close)
            steps.callback(self._console.close)
            steps.callback(self._plan.close)
            steps.callback(self._child.close)


def start(
    program: Path,
    make_machine: Callable[[int, int], Machine],
    plan: Plan,
    *,
    on_console: Callable[[bytes], None],
    on_words: Callable[[str], None],
) -> Qemu:
    """Start QEMU and bring it to where it waits for `cont`, or for a state to load.

    `make_machine` gets QEMU's ends of monitor and console. `plan` belongs to the result, or is
    closed. Must be called from the main thread.
    Errors: QemuEnded with QEMU's own words, QmpBroken, DeadlineExceeded, OSError.
    """
    with ExitStack() as held, ExitStack() as child_ends:
        held.callback(plan.close)
        qmp, child_qmp = socket.socketpair()
        console, child_console = socket.socketpair()
        for end in (qmp, console):
            held.callback(end.close)
        child_ends.callback(child_qmp.close)
        child_ends.callback(child_console.close)
        child_ends.callback(plan.is_spawned)
        machine = make_machine(child_qmp.fileno(), child_console.fileno())
        child = process.spawn(
            [program, *machine.arguments()],
            env={
                **process.CLEAN_ENVIRONMENT,
                "LD_PRELOAD": os.fspath(shim_path()),
                "WRENN_RAM_SHIM": plan.argument,
            },
            stderr=process.PIPE,
            pass_fds=(*machine.inherited_fds, *plan.inherited_fds),
        )
        held.callback(child.close)
        child_ends.close()
        qemu = Qemu(child, qmp, console, plan, on_console, on_words)
        held.pop_all()
        held.callback(qemu.close)
        qemu._wait_until_ready()
        held.pop_all()
        return qemu


def shim_path() -> Path:
    """The preloaded library: built as an extension of this package, it lies beside it."""
    here = Path(__file__).parent
    for suffix in EXTENSION_SUFFIXES:
        path = here / f"_ram_shim{suffix}"
        if path.exists():
            return path
    raise FileNotFoundError(errno.ENOENT, "the RAM shim was not built", os.fspath(here))
