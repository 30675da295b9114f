"""What runs in guests: commands to their end, streams, processes in the background, terminals.

Synchronous; from any thread. What goes out are the messages of the agent's RPC.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from protobuf import Oneof

from wrennd.core.errors import DeadlineExceeded, Error, GuestFailed, InvalidInput
from wrennd.core.model import Command, TerminalSize
from wrennd.gen.hostagent.hostagent_pb import (
    CommandSpec,
    ExecResponse,
    ListProcessesResponse,
    ProcessEvent,
    Selector,
)
from wrennd.host.agent.guests import Guests
from wrennd.host.agent.streams import Outlet
from wrennd.host.envd_processes import Data, Ended, Event, Events, GuestProcesses, Name, Started

MAX_OUTPUT_BYTES = 16 << 20
EXEC_S = 30
TIMED_OUT = 124  # as timeout(1)
DEFAULT_USER = "root"
TERMINAL_TYPE = "xterm-256color"
PIECES = 16  # of at most 32 KiB, as the guest's agent sends them
INPUT_PIECE = 1 << 20
MAX_TAG = 128


def command_of(asked: CommandSpec | None, **more: bool | TerminalSize) -> Command:
    """Errors: InvalidInput."""
    if asked is None or not asked.cmd:
        raise InvalidInput("no command was given")
    has_stdin, terminal = more.get("has_stdin", False), more.get("terminal")
    env = dict(asked.envs)
    if terminal is not None:
        env = {"TERM": TERMINAL_TYPE} | env
    return Command(
        argv=(asked.cmd, *asked.args),
        env=env,
        cwd=asked.cwd,
        user=asked.user or DEFAULT_USER,
        has_stdin=has_stdin is True,
        terminal=terminal if isinstance(terminal, TerminalSize) else None,
    )


def name_of(selector: Selector | None) -> Name:
    """Errors: InvalidInput."""
    which = None if selector is None else selector.selector
    if which is None or not which.value:
        raise InvalidInput("no process was named: give its pid or its tag")
    return which.value


def tag_of(asked: str) -> str:
    """The tag that was asked for, or a new one. Errors: InvalidInput."""
    if len(asked) > MAX_TAG or "\0" in asked:
        raise InvalidInput(f"a tag has {MAX_TAG} characters at most, and no NUL")
    return asked or f"p-{secrets.token_hex(6)}"


class Processes:
    """The processes of all guests."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests

    @contextmanager
    def _of(self, sandbox_id: str) -> Iterator[GuestProcesses]:
        with self._guests.using(sandbox_id) as envd:
            yield envd.processes

    def run(
        self,
        sandbox_id: str,
        command: Command,
        stdin: bytes,
        timeout_s: int,
        outlet: Outlet[ExecResponse],
    ) -> None:
        """A command to its end; it is killed when nobody waits for that any more.

        Errors: as of `EnvdClient.start`.
        """
        began = time.monotonic()
        run = _Run(stdin=stdin)
        with self._of(sandbox_id) as processes:
            limit_s = timeout_s or EXEC_S
            with processes.start(command, limit_s=limit_s) as events:
                run.follow(processes, events, outlet)
        outlet.send(
            ExecResponse(
                stdout=bytes(run.stdout),
                stderr=bytes(run.stderr),
                exit_code=run.code,
                ms=round((time.monotonic() - began) * 1000, 1),
                is_truncated=run.is_truncated,
            )
        )

    def stream(
        self, sandbox_id: str, command: Command, timeout_s: int, outlet: Outlet[ProcessEvent]
    ) -> None:
        """A command's events, into the outlet; it is killed when nobody takes them any more."""
        with self._of(sandbox_id) as processes:
            limit_s = timeout_s or None
            with processes.start(command, limit_s=limit_s) as events:
                _forward(processes, events, outlet, kills=True)

    def connect(
        self, sandbox_id: str, name: Name, outlet: Outlet[ProcessEvent], *, tag: str = ""
    ) -> None:
        """The events of a process that runs, which lives on."""
        with self._of(sandbox_id) as processes, processes.connect(name) as events:
            _forward(processes, events, outlet, tag=tag)

    def start(self, sandbox_id: str, command: Command, tag: str) -> int:
        """The pid of a process that goes on by itself. Errors: as of `EnvdClient.start`."""
        with self._of(sandbox_id) as processes, processes.start(command, tag=tag) as events:
            return _begun(events)

    def attach(
        self, sandbox_id: str, command: Command, tag: str, outlet: Outlet[ProcessEvent]
    ) -> None:
        """Start a process with a terminal; its events. It lives on."""
        with self._of(sandbox_id) as processes, processes.start(command, tag=tag) as events:
            _forward(processes, events, outlet, tag=tag)

    def list(self, sandbox_id: str) -> ListProcessesResponse:
        with self._of(sandbox_id) as processes:
            found = processes.list()
        return ListProcessesResponse(
            processes=[
                ListProcessesResponse.Process(
                    pid=one.pid,
                    tag=one.tag,
                    command=CommandSpec(
                        cmd=one.cmd, args=list(one.args), envs=dict(one.env), cwd=one.cwd
                    ),
                )
                for one in found
            ]
        )

    def signal(self, sandbox_id: str, name: Name, signal: str) -> None:
        """Errors: InvalidInput for another signal; NotFound."""
        if signal not in ("", "SIGKILL", "SIGTERM"):
            raise InvalidInput(f"{signal!r} can't be sent", hint="choose SIGKILL or SIGTERM")
        with self._of(sandbox_id) as processes:
            processes.signal(name, kill=signal != "SIGTERM")

    def send_input(self, sandbox_id: str, name: Name, data: bytes) -> bool:
        """False when it takes no more. Errors: NotFound."""
        with self._of(sandbox_id) as processes:
            for at in range(0, len(data), INPUT_PIECE):
                if not processes.send_input(name, data[at : at + INPUT_PIECE]):
                    return False
        return True

    def close_input(self, sandbox_id: str, name: Name) -> None:
        with self._of(sandbox_id) as processes:
            processes.close_input(name)

    def resize(self, sandbox_id: str, name: Name, size: TerminalSize) -> None:
        with self._of(sandbox_id) as processes:
            processes.resize(name, size)


@dataclass
class _Run:
    """A command on its way to its end, and what it has written, up to a bound for both streams
    together."""

    stdin: bytes
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    is_truncated: bool = False
    code: int = TIMED_OUT
    _pid: int = 0
    _has_ended: bool = False

    def follow(
        self, processes: GuestProcesses, events: Events, outlet: Outlet[ExecResponse]
    ) -> None:
        """To the end. Whatever else happens, the command does not go on."""
        with contextlib.ExitStack() as fed:
            try:
                for event in events:
                    if isinstance(event, Started):
                        # Not before: a command whose pid is not known could not be ended.
                        outlet.on_leave(events.cancel)
                    self._take(event, processes, fed)
                if not self._has_ended:
                    raise GuestFailed("the guest agent did not say how the command ended")
            except DeadlineExceeded:
                if not self._pid:
                    raise
                self.code, self._has_ended = TIMED_OUT, True
            finally:
                if self._pid and not self._has_ended:
                    _kill(processes, self._pid)

    def _take(self, event: Event, processes: GuestProcesses, fed: contextlib.ExitStack) -> None:
        match event:
            case Started(pid):
                self._pid = pid
                if self.stdin:
                    # Beside the reading: who writes while it reads would wait for us.
                    feeder = threading.Thread(target=_feed, args=(processes, pid, self.stdin))
                    feeder.start()
                    fed.callback(feeder.join)
            case Data(kind, data):
                room = MAX_OUTPUT_BYTES - len(self.stdout) - len(self.stderr)
                self.is_truncated = self.is_truncated or len(data) > room
                target = self.stderr if kind == "stderr" else self.stdout
                target += data[:room]
            case Ended(code, _):
                self.code, self._has_ended = code, True


def _feed(processes: GuestProcesses, pid: int, stdin: bytes) -> None:
    """All of a command's input, and its end. One that does not read it is not our concern."""
    with contextlib.suppress(Error):
        for at in range(0, len(stdin), INPUT_PIECE):
            if not processes.send_input(pid, stdin[at : at + INPUT_PIECE]):
                return
        processes.close_input(pid)


def _kill(processes: GuestProcesses, pid: int) -> None:
    with contextlib.suppress(Error):  # it may be gone, with its guest
        processes.signal(pid, kill=True)


def _begun(events: Iterator[Event]) -> int:
    first = next(events, None)
    if not isinstance(first, Started):
        raise GuestFailed("the guest agent did not say that the process started")
    return first.pid


def _forward(
    processes: GuestProcesses,
    events: Events,
    outlet: Outlet[ProcessEvent],
    *,
    tag: str = "",
    kills: bool = False,
) -> None:
    """All events until the end. kills: end the process when that is not reached."""
    pid = 0
    end: Ended | None = None
    try:
        for event in events:
            match event:
                case Started():
                    pid = event.pid
                    # Not before: a command whose pid is not known could not be ended.
                    outlet.on_leave(events.cancel)
                case Ended():
                    end = event  # held back: that it was out of time comes behind it
                    continue
            outlet.send(_message(event, tag))
        if end is None:
            raise GuestFailed(f"the guest agent did not say how process {pid} ended")
    except DeadlineExceeded:
        if not pid:
            raise
        end = Ended(TIMED_OUT, "it was out of time")
    finally:
        if kills and pid and end is None:
            _kill(processes, pid)
    outlet.send(_message(end, tag))


def _message(event: Event, tag: str) -> ProcessEvent:
    match event:
        case Started(pid):
            start: Oneof[Literal["start"], ProcessEvent.Start]
            start = Oneof("start", ProcessEvent.Start(pid=pid, tag=tag))
            return ProcessEvent(event=start)
        case Data(kind, piece):
            data: Oneof[Literal["data"], ProcessEvent.Data] = Oneof("data", _data(kind, piece))
            return ProcessEvent(event=data)
        case Ended(code, error):
            end: Oneof[Literal["end"], ProcessEvent.End]
            end = Oneof("end", ProcessEvent.End(exit_code=code, error=error))
            return ProcessEvent(event=end)


def _data(kind: Literal["stdout", "stderr", "pty"], piece: bytes) -> ProcessEvent.Data:
    stdout: Oneof[Literal["stdout"], bytes]
    stderr: Oneof[Literal["stderr"], bytes]
    pty: Oneof[Literal["pty"], bytes]
    match kind:
        case "stdout":
            stdout = Oneof("stdout", piece)
            return ProcessEvent.Data(output=stdout)
        case "stderr":
            stderr = Oneof("stderr", piece)
            return ProcessEvent.Data(output=stderr)
        case "pty":
            pty = Oneof("pty", piece)
            return ProcessEvent.Data(output=pty)
