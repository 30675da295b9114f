"""The generated client of envd's services over our own connections.

Imported late: connectrpc costs 150 ms, which a booting guest hides. The transport is ours because
the one of the library obeys HTTP_PROXY, can't be woken when the VMM dies or the caller has had
enough, and doesn't let Ctrl-C through while it waits.
"""

import base64
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Literal, Self, TypedDict

from connectrpc.code import Code
from connectrpc.codec import Codec
from connectrpc.errors import ConnectError
from protobuf import Oneof
from pyqwest import Headers, SyncClient, SyncRequest, SyncResponse

from wrennd.core.deadline import Deadline
from wrennd.core.errors import (
    AlreadyExists,
    CommandNotExecutable,
    CommandNotFound,
    DeadlineExceeded,
    Error,
    GuestFailed,
    InvalidInput,
    NoCapacity,
    NotFound,
)
from wrennd.core.model import Command, TerminalSize
from wrennd.core.sandboxes import Exit, Output
from wrennd.gen.envd.process_connect import ProcessClientSync
from wrennd.gen.envd.process_pb import (
    PTY,
    CloseStdinRequest,
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
from wrennd.host.envd_json import ShallowJson
from wrennd.host.envd_wire import (
    MAX_REPLY_BYTES,
    READ_BYTES,
    Peer,
    Wire,
    broken_reply,
    dial,
    exchange,
    read_whole,
    words,
)

if TYPE_CHECKING:
    from wrennd.gen.envd.filesystem_connect import FilesystemClientSync

BASE = "http://envd"
CONNECT_S = 10.0
UNAUTHORIZED = 401
STREAM = "application/connect+"
KEEPALIVE_S = 50
SIGNALLED = 128  # as shells count exit codes


class _Options(TypedDict):
    codec: Codec
    accept_compression: tuple[()]
    read_max_bytes: int
    send_compression: None


_PLAIN_JSON: _Options = {
    "codec": ShallowJson(),
    "accept_compression": (),
    "read_max_bytes": MAX_REPLY_BYTES,
    "send_compression": None,
}

_BY_CODE: dict[Code, type[Error]] = {
    Code.INVALID_ARGUMENT: InvalidInput,
    Code.UNAUTHENTICATED: InvalidInput,  # an unknown user; a bad token never gets this far
    Code.FAILED_PRECONDITION: InvalidInput,
    Code.PERMISSION_DENIED: InvalidInput,
    Code.NOT_FOUND: NotFound,
    Code.ALREADY_EXISTS: AlreadyExists,
    Code.RESOURCE_EXHAUSTED: NoCapacity,
    Code.DEADLINE_EXCEEDED: DeadlineExceeded,
}
# Starting a command has two errors that a shell would tell apart by its exit code.
_BY_CODE_AT_START = {
    Code.NOT_FOUND: CommandNotFound,
    Code.PERMISSION_DENIED: CommandNotExecutable,
}


def translate(error: ConnectError, *, at_start: bool = False) -> Error:
    """The error of ours that an RPC error stands for: the only mapping between the two."""
    if isinstance(error.__cause__, Error):
        return error.__cause__
    if isinstance(error.__cause__, OSError):
        return GuestFailed(f"the connection to the guest agent broke: {error.__cause__}")
    if error.__cause__ is not None:
        # Made on this side of the wire: errors that the agent sent have no cause.
        return GuestFailed(f"the guest agent's answer can't be understood: {words(error.message)}")
    said = words(error.message)
    if at_start and error.code in _BY_CODE_AT_START:
        return _BY_CODE_AT_START[error.code](said)
    known = _BY_CODE.get(error.code)
    if known is not None:
        return known(said)
    return GuestFailed(f"the guest agent failed: {error.code.value}: {said}")


@contextmanager
def translated(*, at_start: bool = False) -> Iterator[None]:
    try:
        yield
    except ConnectError as error:
        raise translate(error, at_start=at_start) from error


def _by_pid(pid: int) -> ProcessSelector:
    selector: Oneof[Literal["pid"], int] = Oneof("pid", pid)
    return ProcessSelector(selector=selector)


def pty_of(size: TerminalSize) -> PTY:
    return PTY(size=PTY.Size(cols=size.cols, rows=size.rows))


def stream_headers(user: str) -> dict[str, str]:
    """Of a call whose answer is a stream of events."""
    headers = {"keepalive-ping-interval": str(KEEPALIVE_S)}
    if user:
        account = base64.b64encode(f"{user}:".encode()).decode()
        headers["authorization"] = f"Basic {account}"
    return headers


@dataclass(frozen=True)
class Began:
    """The command runs; its events follow."""

    pid: int


Event = Began | Output | Exit


def _events(responses: Iterator[StartResponse]) -> Iterator[Event]:
    """The stream's messages as ours. Errors: as of `translate`."""
    has_begun = False
    while True:
        with translated(at_start=not has_begun):
            response = next(responses, None)
        if response is None:
            return
        event = _event(response)
        if event is not None:
            has_begun = True
            yield event


def _event(response: StartResponse) -> Event | None:
    """None for what only keeps the connection alive, and for kinds that we don't know."""
    what = response.event.event if response.event is not None else None
    match what and what.value:
        case ProcessEvent.StartEvent(pid=pid):
            return Began(pid)
        case ProcessEvent.DataEvent(output=output) if output is not None:
            return Output("stdout" if output.field == "pty" else output.field, output.value)
        case ProcessEvent.EndEvent() as end:
            return Exit(SIGNALLED + end.signal if end.signal else end.exit_code)
    return None


class Call:
    """Carries one RPC over one connection: a transport for pyqwest, used once.

    Resources: the connection is closed when the reply is read, or by `cancel`, which may be called
    from another thread and at any time.
    """

    def __init__(self, peer: Peer, headers: dict[str, str], deadline: Deadline | None) -> None:
        self._peer = peer
        self._headers = headers
        self._deadline = deadline
        self._wire: Wire | None = None
        self._is_cancelled = False

    def start(self, command: Command, limit_s: float | None) -> Iterator[Event]:
        """Begin the call; the first event is the pid. Errors come with the first event.

        `limit_s` is enforced by the agent, which kills the command then: DeadlineExceeded.
        """
        request = StartRequest(
            process=ProcessConfig(
                cmd=command.argv[0],
                args=list(command.argv[1:]),
                envs=dict(command.env),
                cwd=command.cwd or None,
            ),
            pty=None if command.terminal is None else pty_of(command.terminal),
            stdin=command.has_stdin,
        )
        headers = stream_headers(command.user)
        if limit_s is not None:
            # As a header only: a time limit of the client's own would come before the agent's
            # last word.
            headers["connect-timeout-ms"] = str(max(1, round(limit_s * 1000)))
        return _events(self.process.start(request, headers=headers))

    def send_input(self, pid: int, data: bytes, *, is_terminal: bool = False) -> None:
        """Returns when the command's pipe, or its terminal, has taken it all.

        Errors: NotFound, GuestFailed.
        """
        to_pipe: Oneof[Literal["stdin"], bytes] = Oneof("stdin", data)
        to_terminal: Oneof[Literal["pty"], bytes] = Oneof("pty", data)
        given = ProcessInput(input=to_terminal if is_terminal else to_pipe)
        with translated():
            self.process.send_input(SendInputRequest(process=_by_pid(pid), input=given))

    def close_stdin(self, pid: int) -> None:
        """Errors: NotFound when the command has ended."""
        with translated():
            self.process.close_stdin(CloseStdinRequest(process=_by_pid(pid)))

    def resize(self, pid: int, size: TerminalSize) -> None:
        """Errors: NotFound when the command has ended."""
        with translated():
            self.process.update(UpdateRequest(process=_by_pid(pid), pty=pty_of(size)))

    def send_signal(self, pid: int, *, kill: bool) -> None:
        """SIGKILL or SIGTERM to the process group. Errors: NotFound when it has ended."""
        which = Signal.SIGKILL if kill else Signal.SIGTERM
        with translated():
            self.process.send_signal(SendSignalRequest(process=_by_pid(pid), signal=which))

    @property
    def process(self) -> ProcessClientSync:
        return ProcessClientSync(BASE, http_client=SyncClient(self), **_PLAIN_JSON)

    @property
    def filesystem(self) -> "FilesystemClientSync":
        """Imported late: commands, which are most of what is called, do without it."""
        from wrennd.gen.envd.filesystem_connect import FilesystemClientSync

        return FilesystemClientSync(BASE, http_client=SyncClient(self), **_PLAIN_JSON)

    def lift_deadline(self) -> None:
        """What was asked for has begun; how long it goes on is not ours to say."""
        self._deadline = None
        if self._wire is not None:
            self._wire.deadline = None

    def cancel(self) -> None:
        self._is_cancelled = True
        if self._wire is not None:
            self._wire.cancel()

    def execute_sync(self, request: SyncRequest) -> SyncResponse:
        """Called by pyqwest. What it raises is the `__cause__` of the RPC's error."""
        with ExitStack() as held:
            response = held.enter_context(self._exchange(request))
            headers = Headers(response.getheaders())
            if response.status == UNAUTHORIZED:
                # An unknown user is a Connect error; a bad token never gets that far.
                body = read_whole(response)
                if b'"code":"' not in body:
                    raise GuestFailed("the guest agent refuses the access token")
                return SyncResponse(status=response.status, headers=headers, content=body)
            if not response.getheader("content-type", "").startswith(STREAM):
                return SyncResponse(
                    status=response.status, headers=headers, content=read_whole(response)
                )
            content = Body(response, held.pop_all())
            return SyncResponse(status=response.status, headers=headers, content=content)

    def _exchange(self, request: SyncRequest) -> AbstractContextManager[HTTPResponse]:
        self._check_cancelled()
        patience = Deadline.after(CONNECT_S) if self._deadline is None else self._deadline
        self._wire = Wire(dial(self._peer, patience), self._peer, self._deadline)
        self._check_cancelled()
        target = request.url.removeprefix(BASE)
        headers = {**dict(request.headers.items()), **self._headers}
        return exchange(self._wire, request.method, target, headers, request.content)

    def _check_cancelled(self) -> None:
        if self._is_cancelled:
            if self._wire is not None:
                self._wire.close()
            raise ConnectionAbortedError("the call was cancelled")


class Body:
    """The bytes of a reply as they come. Owns its connection; `close` may be called twice."""

    def __init__(self, response: HTTPResponse, held: ExitStack) -> None:
        self._response = response
        self._held = held

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            data = self._response.read1(READ_BYTES)
        except HTTPException as error:
            raise broken_reply(error) from error
        if not data:
            self.close()
            raise StopIteration
        return data

    def close(self) -> None:
        self._held.close()
