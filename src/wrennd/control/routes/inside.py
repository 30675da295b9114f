"""What is done inside a sandbox, the same under /v1/sandboxes and /v1/capsules: commands."""

import base64
import binascii
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from wrennd.control.commands import (
    DEFAULT_TIMEOUT_S,
    DEFAULT_USER,
    MAX_TIMEOUT_S,
    SLACK_S,
    Run,
    check_tag,
    encoded,
    selector,
)
from wrennd.control.routes.parameters import ACTS, CallerOf, LastingCallerOf, SandboxId, ServicesOf
from wrennd.control.services import Services
from wrennd.control.shapes import Env
from wrennd.core.errors import InvalidInput
from wrennd.gen.hostagent import hostagent_pb as pb

CALL_MS = 60_000
# Points of the last so many seconds.
RANGES = {
    "5m": 300,
    "10m": 600,
    "1h": 3600,
    "2h": 7200,
    "6h": 6 * 3600,
    "12h": 12 * 3600,
    "24h": 24 * 3600,
}
Range = Literal["5m", "10m", "1h", "2h", "6h", "12h", "24h"]


class ExecShape(BaseModel):
    model_config = ConfigDict(strict=True)

    cmd: Annotated[str, Field(min_length=1)]
    args: list[str] | None = None
    timeout_sec: Annotated[int, Field(ge=0, le=MAX_TIMEOUT_S)] | None = None
    envs: Env | None = None
    cwd: Annotated[str, Field(max_length=4096)] | None = None
    user: Annotated[str, Field(min_length=1, max_length=64)] = DEFAULT_USER
    stdin: Annotated[str, Field(description="base64")] | None = None
    background: bool = False
    tag: str | None = None

    def to_run(self) -> Run:
        return Run(
            cmd=self.cmd,
            args=tuple(self.args or ()),
            envs=self.envs or {},
            cwd=self.cwd or "",
            user=self.user,
        )


class ExecAnswer(BaseModel):
    sandbox_id: str
    cmd: str
    stdout: str
    stderr: str
    exit_code: int
    duration_ms: int
    encoding: Literal["utf-8", "base64"]
    truncated: bool


class BackgroundAnswer(BaseModel):
    sandbox_id: str
    cmd: str
    pid: int
    tag: str


class ProcessShape(BaseModel):
    pid: int
    tag: str
    cmd: str
    args: list[str]


class ProcessListShape(BaseModel):
    processes: list[ProcessShape]


class MetricPoint(BaseModel):
    timestamp_unix: int
    cpu_pct: float
    mem_bytes: int
    disk_bytes: int


class LogsShape(BaseModel):
    """content: base64 of what is new; next: the offset of what comes after it; console: which one
    it is, another after a resume."""

    content: str
    next: int
    console: str


class MetricsShape(BaseModel):
    sandbox_id: str
    range: Range
    points: list[MetricPoint]


async def execute(
    sandbox_id: SandboxId, caller: LastingCallerOf, services: ServicesOf, body: ExecShape
) -> Response:
    """Run a command to its end, or start one in the background (202)."""
    run = body.to_run()
    row = await services.operations.ready(caller.project, sandbox_id)
    if body.background:
        return await _start(services, row.id, run, body.tag or "")
    timeout_s = body.timeout_sec or DEFAULT_TIMEOUT_S
    answer = await services.agent.rpc.exec(
        pb.ExecRequest(
            sandbox_id=row.id,
            command=run.to_spec(),
            timeout_s=timeout_s,
            stdin=_stdin(body.stdin),
        ),
        timeout_ms=(timeout_s + SLACK_S) * 1000,
    )
    stdout, stderr, encoding = encoded(answer.stdout, answer.stderr)
    return JSONResponse(
        {
            "sandbox_id": row.id,
            "cmd": body.cmd,
            "stdout": stdout,
            "stderr": stderr,
            "exit_code": answer.exit_code,
            "duration_ms": round(answer.ms),
            "encoding": encoding,
            "truncated": answer.is_truncated,
        }
    )


async def _start(services: Services, sandbox_id: str, run: Run, tag: str) -> Response:
    request = pb.StartBackgroundRequest(
        sandbox_id=sandbox_id, command=run.to_spec(), tag=check_tag(tag) if tag else ""
    )
    answer = await services.agent.rpc.start_background(request, timeout_ms=CALL_MS)
    shape = BackgroundAnswer(sandbox_id=sandbox_id, cmd=run.cmd, pid=answer.pid, tag=answer.tag)
    return JSONResponse(shape.model_dump(), status_code=202)


def _stdin(text: str | None) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("stdin is not base64") from None


async def list_processes(
    sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf
) -> ProcessListShape:
    """The commands that run in it and were started through this API."""
    row = await services.operations.ready(caller.project, sandbox_id)
    answer = await services.agent.rpc.list_processes(
        pb.ListProcessesRequest(sandbox_id=row.id), timeout_ms=CALL_MS
    )
    found = [
        ProcessShape(
            pid=each.pid,
            tag=each.tag,
            cmd=each.command.cmd if each.command else "",
            args=list(each.command.args) if each.command else [],
        )
        for each in answer.processes
    ]
    return ProcessListShape(processes=found)


async def kill_process(
    sandbox_id: SandboxId,
    process: Annotated[str, Path(pattern=r"^[ -~]{1,64}$", description="process id or tag")],
    caller: CallerOf,
    services: ServicesOf,
    signal: Annotated[Literal["SIGKILL", "SIGTERM"], Query()] = "SIGKILL",
) -> Response:
    """Signal one, by its process id or its tag."""
    target = selector(process)
    row = await services.operations.ready(caller.project, sandbox_id)
    request = pb.KillProcessRequest(sandbox_id=row.id, process=target, signal=signal)
    await services.agent.rpc.kill_process(request, timeout_ms=CALL_MS)
    return Response(status_code=204)


async def ping(sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf) -> Response:
    """Activity: the time until it expires begins anew."""
    await services.operations.ping(caller.project, sandbox_id)
    return Response(status_code=204)


async def metrics(
    sandbox_id: SandboxId,
    caller: CallerOf,
    services: ServicesOf,
    range: Annotated[Range, Query()] = "10m",
) -> MetricsShape:
    """What it used, oldest first."""
    row = await services.operations.get(caller.project, sandbox_id)
    answer = await services.agent.rpc.get_sandbox_metrics(
        pb.GetSandboxMetricsRequest(sandbox_id=row.id, seconds=RANGES[range]), timeout_ms=CALL_MS
    )
    points = [
        MetricPoint(
            timestamp_unix=point.unix_ms // 1000,
            cpu_pct=round(point.cpu_percent, 2),
            mem_bytes=point.mem_bytes,
            disk_bytes=point.disk_bytes,
        )
        for point in answer.points
    ]
    return MetricsShape(sandbox_id=row.id, range=range, points=points)


async def logs(
    sandbox_id: SandboxId,
    caller: CallerOf,
    services: ServicesOf,
    offset: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
) -> LogsShape:
    """What its kernel and init wrote on its console, from `offset` on, 256 KiB at most."""
    row = await services.operations.get(caller.project, sandbox_id)
    request = pb.ReadConsoleRequest(sandbox_id=row.id, offset=offset)
    answer = await services.agent.rpc.read_console(request, timeout_ms=CALL_MS)
    return LogsShape(
        content=base64.b64encode(answer.content).decode(),
        next=offset + len(answer.content),
        console=str(answer.console),
    )


def router(prefix: str, tag: str) -> APIRouter:
    """The routes below a sandbox's own."""
    routes = APIRouter(prefix=f"{prefix}/{{sandbox_id}}", tags=[tag], responses=ACTS)
    add = routes.add_api_route
    background = {"model": BackgroundAnswer, "description": "Started in the background"}
    add("/exec", execute, methods=["POST"], response_model=ExecAnswer, responses={202: background})
    add("/processes", list_processes, methods=["GET"])
    add("/processes/{process}", kill_process, methods=["DELETE"], status_code=204)
    add("/ping", ping, methods=["POST"], status_code=204)
    add("/metrics", metrics, methods=["GET"])
    add("/logs", logs, methods=["GET"])
    return routes
