"""WebSockets of commands: exec/stream, and the output of a process that runs."""

import base64
import binascii
import codecs
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, WebSocket
from protobuf import Oneof
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wrennd.control import sessions
from wrennd.control.agent_client import closing
from wrennd.control.commands import DEFAULT_USER, MAX_TIMEOUT_S, Run, selector
from wrennd.control.routes.inside import CALL_MS
from wrennd.control.sessions import Session, first_of
from wrennd.control.shapes import Env
from wrennd.core.errors import GuestFailed, InvalidInput
from wrennd.core.ids import check_sandbox_id
from wrennd.gen.hostagent import hostagent_pb as pb

Encoding = Literal["text", "base64"]
M = TypeVar("M", bound=BaseModel)


class Frame(BaseModel):
    model_config = ConfigDict(strict=True)


class StartFrame(Frame):
    cmd: Annotated[str, Field(min_length=1)]
    args: list[str] | None = None
    envs: Env | None = None
    cwd: str | None = None
    user: str = DEFAULT_USER
    timeout_sec: Annotated[int, Field(ge=0, le=MAX_TIMEOUT_S)] = 0
    stdin: bool = False
    encoding: Encoding = "text"

    def to_run(self) -> Run:
        return Run(
            cmd=self.cmd,
            args=tuple(self.args or ()),
            envs=self.envs or {},
            cwd=self.cwd or "",
            user=self.user,
        )


class DataFrame(Frame):
    data: str


class SignalFrame(Frame):
    signal: Literal["SIGKILL", "SIGTERM"]


def parsed(shape: type[M], frame: dict[str, Any]) -> M:
    """Errors: InvalidInput."""
    try:
        return shape.model_validate(frame)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{where}: {first['msg']}") from None


class Encoder:
    """Output as frames have it. As text, a character may be split between two pieces."""

    def __init__(self, encoding: Encoding) -> None:
        self._is_base64 = encoding == "base64"
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {name: make(errors="replace") for name in ("stdout", "stderr")}

    def encode(self, stream: str, data: bytes) -> str:
        if self._is_base64:
            return base64.b64encode(data).decode()
        return self._decoders[stream].decode(data)

    def rest(self) -> list[tuple[str, str]]:
        """What is left of a character that never came whole."""
        return [
            (name, text)
            for name, each in self._decoders.items()
            if (text := each.decode(b"", True))
        ]


def decoded(data: str, encoding: str) -> bytes:
    """Errors: InvalidInput."""
    try:
        return base64.b64decode(data, validate=True) if encoding == "base64" else data.encode()
    except (binascii.Error, ValueError):
        raise InvalidInput(f"data is not {encoding}") from None


async def exec_stream(websocket: WebSocket, sandbox_id: str) -> None:
    await sessions.serve(websocket, sandbox_id, _exec)


async def process_stream(websocket: WebSocket, sandbox_id: str, process: str) -> None:
    encoding: Encoding = "base64" if websocket.query_params.get("encoding") == "base64" else "text"

    async def show(session: Session, sandbox_id: str) -> None:
        target = selector(process)
        row = await session.services.operations.ready(
            session.caller.project, check_sandbox_id(sandbox_id)
        )
        request = pb.ConnectProcessRequest(sandbox_id=row.id, process=target)
        messages = session.services.agent.rpc.connect_process(request)
        async with aclosing(_events(messages)) as events:
            await first_of(_show(session, events, Encoder(encoding)), _leaving(session))

    await sessions.serve(websocket, sandbox_id, show)


async def _leaving(session: Session) -> None:
    async for _ in session.frames():
        pass


async def _exec(session: Session, sandbox_id: str) -> None:
    """Until the command ends, or the client: then the command ends with it."""
    first = await session.first()
    if first["type"] != "start":
        raise InvalidInput("the first frame is a start")
    start = parsed(StartFrame, first)
    run = start.to_run()
    row = await session.services.operations.ready(
        session.caller.project, check_sandbox_id(sandbox_id)
    )
    request = pb.ExecStreamRequest(
        sandbox_id=row.id,
        command=run.to_spec(),
        timeout_s=start.timeout_sec,
        has_stdin=start.stdin,
    )
    messages = session.services.agent.rpc.exec_stream(request)
    async with aclosing(_events(messages)) as events:
        pid = started(await anext(events, None)).pid
        await session.send({"type": "start", "pid": pid})
        orders = _orders(session, row.id, pid, start)
        await first_of(_show(session, events, Encoder(start.encoding)), orders)


def started(event: pb.ProcessEvent | None) -> pb.ProcessEvent.Start:
    """What a process's first event says. Errors: GuestFailed when it is another."""
    match event.event if event else None:
        case Oneof(value=pb.ProcessEvent.Start() as start):
            return start
    raise GuestFailed("the process did not say that it started")


async def _events(
    messages: "AsyncIterator[pb.ExecStreamResponse] | AsyncIterator[pb.ConnectProcessResponse]",
) -> AsyncGenerator[pb.ProcessEvent, None]:
    async with closing(messages):
        async for message in messages:
            if message.event is not None:
                yield message.event


async def _show(session: Session, events: AsyncIterator[pb.ProcessEvent], encoder: Encoder) -> None:
    async for each in events:
        match each.event:
            case Oneof(value=pb.ProcessEvent.Start() as start):
                await session.send({"type": "start", "pid": start.pid})
            case Oneof(value=pb.ProcessEvent.Data() as data):
                await _show_data(session, data, encoder)
            case Oneof(value=pb.ProcessEvent.End() as end):
                for stream, text in encoder.rest():
                    await session.send({"type": stream, "data": text})
                await session.send({"type": "exit", "exit_code": end.exit_code})
                return


async def _show_data(session: Session, data: pb.ProcessEvent.Data, encoder: Encoder) -> None:
    if data.output is None:
        return
    stream = "stderr" if data.output.field == "stderr" else "stdout"
    text = encoder.encode(stream, bytes(data.output.value))
    if text:
        await session.send({"type": stream, "data": text})


async def _orders(session: Session, sandbox_id: str, pid: int, start: StartFrame) -> None:
    """What the client sends while its command runs."""
    rpc = session.services.agent.rpc
    by_pid: Oneof[Literal["pid"], int] = Oneof("pid", pid)
    target = pb.Selector(selector=by_pid)
    async for frame in session.frames():
        if isinstance(frame, bytes):
            raise InvalidInput("frames of this stream are JSON in text frames")
        match frame["type"]:
            case "stdin":
                data = decoded(parsed(DataFrame, frame).data, start.encoding)
                sent = pb.SendInputRequest(sandbox_id=sandbox_id, process=target, data=data)
                await rpc.send_input(sent, timeout_ms=CALL_MS)
            case "stdin_close":
                closed = pb.CloseInputRequest(sandbox_id=sandbox_id, process=target)
                await rpc.close_input(closed, timeout_ms=CALL_MS)
            case "signal" | "stop":
                name = "SIGKILL" if frame["type"] == "stop" else parsed(SignalFrame, frame).signal
                killed = pb.KillProcessRequest(sandbox_id=sandbox_id, process=target, signal=name)
                await rpc.kill_process(killed, timeout_ms=CALL_MS)
            case "pong":
                pass
            case other:
                raise InvalidInput(f"{other[:40]!r} is no frame of this stream")


def router(prefix: str) -> APIRouter:
    """The WebSockets below a sandbox's own routes."""
    routes = APIRouter(prefix=f"{prefix}/{{sandbox_id}}")
    routes.add_api_websocket_route("/exec/stream", exec_stream)
    routes.add_api_websocket_route("/processes/{process}/stream", process_stream)
    return routes
