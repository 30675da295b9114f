"""The processes of one guest, as its agent shows them: list, start, join, feed, resize, signal.

Synchronous, like the client that it belongs to; each call has a connection of its own, and CALL_S
for its answer. Processes are named by pid or by tag. Errors of all: NotFound for what has ended,
GuestFailed, VmmFailed, DeadlineExceeded.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from protobuf import Oneof

from wrennd.core.deadline import Deadline
from wrennd.core.errors import GuestFailed, InvalidInput
from wrennd.core.model import Command, TerminalSize
from wrennd.gen.envd.process_pb import (
    CloseStdinRequest,
    ConnectRequest,
    ConnectResponse,
    ListRequest,
    ProcessConfig,
    ProcessEvent,
    ProcessInput,
    ProcessSelector,
    SendInputRequest,
    SendSignalRequest,
    Signal,
    StartRequest,
    StartResponse,
    UpdateRequest,
)
from wrennd.host.envd_rpc import SIGNALLED, Call, pty_of, stream_headers, translated

CALL_S = 30.0
# Until a process that was started, or joined, says so.
BEGIN_S = 60.0
# What a process has not taken by then it won't: it doesn't read.
INPUT_S = 60.0
MAX_PID = 1 << 31
MAX_SIGNAL = 64
MAX_ERROR = 1000
Kind = Literal["stdout", "stderr", "pty"]


@dataclass(frozen=True, kw_only=True)
class ProcessInfo:
    """A process that runs."""

    pid: int
    tag: str = ""
    cmd: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""


@dataclass(frozen=True)
class Started:
    pid: int


@dataclass(frozen=True)
class Data:
    kind: Kind
    data: bytes


@dataclass(frozen=True)
class Ended:
    """code: the exit code, or 128 plus the number of the signal."""

    code: int
    error: str = ""


Event = Started | Data | Ended
Name = int | str  # pid or tag


class GuestProcesses:
    """The processes of one guest. `call` makes a connection for one RPC, with that deadline."""

    def __init__(self, call: Callable[[Deadline | None], Call]) -> None:
        self._call = call

    def list(self) -> list[ProcessInfo]:
        with translated():
            found = self._brief().process.list(ListRequest())
        return [
            ProcessInfo(
                pid=_pid(one.pid),
                tag=one.tag if one.has_field("tag") else "",
                cmd="" if one.config is None else one.config.cmd,
                args=() if one.config is None else tuple(one.config.args),
                env={} if one.config is None else dict(one.config.envs),
                cwd="" if one.config is None else one.config.cwd,
            )
            for one in found.processes
        ]

    @contextmanager
    def start(
        self, command: Command, *, tag: str = "", limit_s: float | None = None
    ) -> Iterator["Events"]:
        """Start a process; its events, the first one a Started, then data, last an Ended.

        Leaving the block drops the connection, not the process. Errors, with the first event: as
        of `EnvdClient.start`.
        """
        request = StartRequest(
            process=ProcessConfig(
                cmd=command.argv[0],
                args=list(command.argv[1:]),
                envs=dict(command.env),
                cwd=command.cwd or None,
            ),
            pty=None if command.terminal is None else pty_of(command.terminal),
            tag=tag or None,
            stdin=command.has_stdin,
        )
        headers = stream_headers(command.user)
        if limit_s is not None:
            headers["connect-timeout-ms"] = str(max(1, round(limit_s * 1000)))
        call = self._call(Deadline.after(BEGIN_S))
        try:
            yield Events(call, call.process.start(request, headers=headers), starts=True)
        finally:
            call.cancel()

    @contextmanager
    def connect(self, name: Name) -> Iterator["Events"]:
        """Join a process, as `start`: from now on."""
        call = self._call(Deadline.after(BEGIN_S))
        request = ConnectRequest(process=_selector(name))
        try:
            yield Events(call, call.process.connect(request, headers=stream_headers("")))
        finally:
            call.cancel()

    def send_input(self, name: Name, data: bytes) -> bool:
        """Returns when it has taken all of it, by its terminal or its pipe; false when it takes no
        more."""
        to_terminal: Oneof[Literal["pty"], bytes] = Oneof("pty", data)
        to_pipe: Oneof[Literal["stdin"], bytes] = Oneof("stdin", data)
        try:
            try:  # whose keys have to be quick
                self._send(name, ProcessInput(input=to_terminal))
            except InvalidInput:
                self._send(name, ProcessInput(input=to_pipe))
        except GuestFailed:
            return False
        return True

    def _send(self, name: Name, given: ProcessInput) -> None:
        with translated():
            self._call(Deadline.after(INPUT_S)).process.send_input(
                SendInputRequest(process=_selector(name), input=given)
            )

    def close_input(self, name: Name) -> None:
        """Errors: InvalidInput for a terminal, which has no such end."""
        with translated():
            self._brief().process.close_stdin(CloseStdinRequest(process=_selector(name)))

    def resize(self, name: Name, size: TerminalSize) -> None:
        with translated():
            self._brief().process.update(UpdateRequest(process=_selector(name), pty=pty_of(size)))

    def signal(self, name: Name, *, kill: bool) -> None:
        """SIGKILL or SIGTERM to its process group."""
        which = Signal.SIGKILL if kill else Signal.SIGTERM
        with translated():
            self._brief().process.send_signal(
                SendSignalRequest(process=_selector(name), signal=which)
            )

    def _brief(self) -> Call:
        return self._call(Deadline.after(CALL_S))


class Events:
    """What happens to a process, as it comes. `cancel` may be called from any thread."""

    def __init__(
        self,
        call: Call,
        responses: Iterator[StartResponse] | Iterator[ConnectResponse],
        *,
        starts: bool = False,
    ) -> None:
        self._call = call
        self._responses = responses
        self._is_starting = starts

    def __iter__(self) -> "Events":
        return self

    def __next__(self) -> Event:
        while True:
            with translated(at_start=self._is_starting):
                response = next(self._responses, None)
            if response is None:
                raise StopIteration
            event = _event(response.event)
            if isinstance(event, Started):
                self._is_starting = False
                self._call.lift_deadline()
            if event is not None:
                return event

    def cancel(self) -> None:
        """Wake who waits for the next event, and end the connection. The process goes on."""
        self._call.cancel()


def _event(found: ProcessEvent | None) -> Event | None:
    """None for what only keeps the connection alive, and for kinds that we don't know."""
    what = None if found is None else found.event
    match what and what.value:
        case ProcessEvent.StartEvent(pid=pid):
            return Started(_pid(pid))
        case ProcessEvent.DataEvent(output=output) if output is not None:
            return Data(output.field, output.value)
        case ProcessEvent.EndEvent() as end:
            if end.signal > MAX_SIGNAL:
                raise GuestFailed(f"the guest agent says that signal {end.signal} was the end")
            return Ended(
                SIGNALLED + end.signal if end.signal else end.exit_code, end.error[:MAX_ERROR]
            )
    return None


def _pid(found: int) -> int:
    if not 0 < found < MAX_PID:
        raise GuestFailed(f"the guest agent says that a process has the pid {found}")
    return found


def _selector(name: Name) -> ProcessSelector:
    if isinstance(name, int):
        by_pid: Oneof[Literal["pid"], int] = Oneof("pid", name)
        return ProcessSelector(selector=by_pid)
    by_tag: Oneof[Literal["tag"], str] = Oneof("tag", name)
    return ProcessSelector(selector=by_tag)
