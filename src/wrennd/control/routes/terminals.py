"""The WebSocket of a terminal: it outlives its callers, who may join it again by its tag."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, WebSocket
from protobuf import Oneof
from pydantic import Field

from wrennd.control import sessions
from wrennd.control.agent_client import closing
from wrennd.control.commands import DEFAULT_USER, Run, check_tag
from wrennd.control.routes.inside import CALL_MS
from wrennd.control.routes.streams import DataFrame, Frame, decoded, parsed, started
from wrennd.control.sessions import Session, first_of
from wrennd.control.shapes import Env
from wrennd.core.errors import InvalidInput
from wrennd.core.ids import check_sandbox_id
from wrennd.core.model import MAX_TERMINAL
from wrennd.gen.hostagent import hostagent_pb as pb

PING_S = 30.0
SHELL = "/bin/bash"
Encoding = Literal["base64", "binary"]
Size = Annotated[int, Field(ge=1, le=MAX_TERMINAL)]


class StartFrame(Frame):
    cmd: str | None = None
    args: list[str] | None = None
    cols: Size = 80
    rows: Size = 24
    envs: Env | None = None
    cwd: str | None = None
    user: str | None = None
    tag: str | None = None
    encoding: Encoding | None = None


class ConnectFrame(Frame):
    tag: str
    encoding: Encoding | None = None


class ResizeFrame(Frame):
    cols: Size
    rows: Size


async def terminal(websocket: WebSocket, sandbox_id: str) -> None:
    await sessions.serve(websocket, sandbox_id, _terminal)


async def _terminal(session: Session, sandbox_id: str) -> None:
    first = await session.first()
    request, encoding = _request(sandbox_id, first)
    row = await session.services.operations.ready(
        session.caller.project, check_sandbox_id(sandbox_id)
    )
    messages = session.services.agent.rpc.attach_pty(request)
    async with closing(messages):
        first_message = await anext(messages, None)
        start = started(first_message.event if first_message else None)
        await session.send({"type": "started", "tag": start.tag, "pid": start.pid})
        is_binary = (encoding or ("binary" if session.is_older else "base64")) == "binary"
        shown = _show(session, messages, is_binary=is_binary)
        await first_of(shown, _attend(session, row.id, start.pid))


def _request(sandbox_id: str, frame: dict[str, Any]) -> tuple[pb.AttachPtyRequest, Encoding | None]:
    """Errors: InvalidInput."""
    if frame["type"] == "connect":
        join = parsed(ConnectFrame, frame)
        return pb.AttachPtyRequest(sandbox_id=sandbox_id, tag=check_tag(join.tag)), join.encoding
    if frame["type"] != "start":
        raise InvalidInput("the first frame is a start or a connect")
    start = parsed(StartFrame, frame)
    run = Run(
        cmd=start.cmd or SHELL,
        args=tuple(start.args or ()),
        envs=start.envs or {},
        cwd=start.cwd or "",
        user=start.user or DEFAULT_USER,
    )
    request = pb.AttachPtyRequest(
        sandbox_id=sandbox_id,
        command=run.to_spec(),
        tag=check_tag(start.tag) if start.tag else "",
        cols=start.cols,
        rows=start.rows,
    )
    return request, start.encoding


async def _show(
    session: Session, messages: AsyncIterator[pb.AttachPtyResponse], *, is_binary: bool
) -> None:
    async for message in messages:
        match message.event.event if message.event else None:
            case Oneof(value=pb.ProcessEvent.Data() as data):
                output = bytes(data.output.value) if data.output else b""
                if is_binary:
                    await session.send_bytes(output)
                else:
                    text = base64.b64encode(output).decode()
                    await session.send({"type": "output", "data": text})
            case Oneof(value=pb.ProcessEvent.End() as end):
                await session.send({"type": "exit", "exit_code": end.exit_code})
                return
            case _:
                pass


async def _attend(session: Session, sandbox_id: str, pid: int) -> None:
    """What the client types; and a ping now and then, which proxies take for life."""
    await first_of(_orders(session, sandbox_id, pid), _pings(session))


async def _pings(session: Session) -> None:
    while True:
        await asyncio.sleep(PING_S)
        await session.send({"type": "ping"})


async def _orders(session: Session, sandbox_id: str, pid: int) -> None:
    rpc = session.services.agent.rpc
    by_pid: Oneof[Literal["pid"], int] = Oneof("pid", pid)
    target = pb.Selector(selector=by_pid)

    async def send(data: bytes) -> None:
        sent = pb.SendInputRequest(sandbox_id=sandbox_id, process=target, data=data)
        await rpc.send_input(sent, timeout_ms=CALL_MS)

    async for frame in session.frames():
        if isinstance(frame, bytes):
            await send(frame)
            continue
        match frame["type"]:
            case "input":
                await send(decoded(parsed(DataFrame, frame).data, "base64"))
            case "resize":
                size = parsed(ResizeFrame, frame)
                resized = pb.ResizePtyRequest(
                    sandbox_id=sandbox_id, process=target, cols=size.cols, rows=size.rows
                )
                await rpc.resize_pty(resized, timeout_ms=CALL_MS)
            case "kill":
                killed = pb.KillProcessRequest(sandbox_id=sandbox_id, process=target)
                await rpc.kill_process(killed, timeout_ms=CALL_MS)
                await asyncio.Event().wait()  # its end is shown, which ends this
            case "pong":
                pass
            case other:
                raise InvalidInput(f"{other[:40]!r} is no frame of a terminal")


def router(prefix: str) -> APIRouter:
    """The WebSocket below a sandbox's own routes."""
    routes = APIRouter(prefix=f"{prefix}/{{sandbox_id}}")
    routes.add_api_websocket_route("/pty", terminal)
    return routes
