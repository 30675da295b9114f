"""A host agent in memory, which keeps to the contract of the real one (docs/hostagent.md).

`FakeHostAgent` is the service; `serving(agent, socket)` serves it over a Unix socket in a thread.
Failures are scripted by value: `fail(method, error)` for the next call, `lose(method)` for one that
is done and whose answer is lost, `hold(method)` for one that waits until it is released.
"""

import asyncio
import contextlib
import ipaddress
import secrets
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from fakes.guest import SIGNALS, Guest, Process, now_ms
from wrennd.core.errors import (
    AlreadyExists,
    Error,
    InvalidInput,
    NoCapacity,
    NotFound,
    WrongState,
)
from wrennd.core.ids import check_name, check_sandbox_id
from wrennd.core.model import SandboxSpec, check_children
from wrennd.gen.hostagent import hostagent_pb as pb
from wrennd.gen.hostagent.hostagent_connect import (
    HostAgentService,
    HostAgentServiceASGIApplication,
)

CODES = {
    400: Code.INVALID_ARGUMENT,
    404: Code.NOT_FOUND,
    409: Code.FAILED_PRECONDITION,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
CHUNK = 64 << 10
FOREVER_S = 1e6
# Kinds of templates as kinds of what takes disk.
FROM = {"image": "image", "snapshot": "template"}
MIN_DISK_MIB = 64
NOWHERE, ENDLESS = "/dev/null", "/dev/zero"


def to_connect(error: Error) -> ConnectError:
    detail = pb.ErrorDetail(code=error.code, message=str(error), hint=error.hint)
    return ConnectError(CODES.get(error.status, Code.INTERNAL), str(error), details=[detail])


@dataclass
class Held:
    """A call that waits. `reached` is set when it does."""

    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


@dataclass
class Script:
    """What is to happen to coming calls, by method."""

    failures: dict[str, list[Error]] = field(default_factory=lambda: defaultdict(list))
    lost: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    held: dict[str, list[Held]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class Box:
    """A sandbox of the fake."""

    facts: pb.Sandbox
    guest: Guest
    disk_mib: int
    console: bytes = b"booted\n"
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class FakeHostAgent(HostAgentService):
    """In-memory. `boxes`, `templates` may be looked at and changed by tests; `calls` were made, and
    so many of each method are `open` now."""

    def __init__(self, *, mem_mib: int = 1 << 20) -> None:
        self.installation = secrets.token_hex(3)
        self.mem_mib = mem_mib
        self.boxes: dict[str, Box] = {}
        self.templates: dict[str, pb.Template] = {
            "base": pb.Template(
                name="base", kind="image", size_bytes=1 << 30, created_unix_ms=now_ms()
            )
        }
        self.script = Script()
        self.calls: list[str] = []
        self.open: Counter[str] = Counter()
        self._answers: dict[str, Any] = {}
        self._next_address = 0

    # What tests say.

    def fail(self, method: str, error: Error) -> None:
        self.script.failures[method].append(error)

    def lose(self, method: str) -> None:
        self.script.lost[method] += 1

    @contextmanager
    def hold(self, method: str) -> Iterator[Held]:
        held = Held()
        self.script.held[method].append(held)
        try:
            yield held
        finally:
            held.released.set()

    def change(
        self, sandbox_id: str, state: str, *, cause: str = "expiry", error: str = ""
    ) -> None:
        """As if the host had done it by itself."""
        facts = self.boxes[sandbox_id].facts
        facts.state, facts.cause, facts.error = state, cause, error
        facts.revision += 1
        if state != "running":
            facts.address, facts.active_unix_ms = "", 0

    def put(self, sandbox_id: str, state: str = "running", **more: Any) -> pb.Sandbox:
        """One that was made without the server."""
        facts = self._facts(sandbox_id, "base", 1, 512, None)
        facts.state = state
        for name, value in more.items():
            setattr(facts, name, value)
        self.boxes[sandbox_id] = Box(facts=facts, guest=Guest({}), disk_mib=4096)
        return facts

    # The service.

    async def get_host(self, request: pb.GetHostRequest, ctx: Any) -> pb.GetHostResponse:
        async with self._call("get_host"):
            used = sum(b.facts.mem_mib for b in self.boxes.values() if b.facts.state == "running")
            return pb.GetHostResponse(
                installation=self.installation,
                version="fake",
                tier="emulated",
                vmm="fake",
                vmm_version="1",
                kernel="6.1",
                envd_version="0.5",
                capacity=pb.Capacity(
                    mem_mib=self.mem_mib,
                    mem_mib_reserved=used,
                    disk_bytes=1 << 40,
                    disk_bytes_free=(1 << 39) + secrets.randbelow(1 << 20),  # it never stands still
                    cpus=4,
                ),
                started_unix_ms=1_700_000_000_000,
            )
        raise AssertionError

    async def list_sandboxes(
        self, request: pb.ListSandboxesRequest, ctx: Any
    ) -> pb.ListSandboxesResponse:
        async with self._call("list_sandboxes"):
            return pb.ListSandboxesResponse(
                installation=self.installation,
                sandboxes=[copy(box.facts) for box in self.boxes.values()],
            )
        raise AssertionError

    async def get_sandbox(self, request: pb.GetSandboxRequest, ctx: Any) -> pb.GetSandboxResponse:
        async with self._call("get_sandbox"):
            return pb.GetSandboxResponse(sandbox=copy(self._box(request.sandbox_id).facts))
        raise AssertionError

    async def create_sandbox(
        self, request: pb.CreateSandboxRequest, ctx: Any
    ) -> pb.CreateSandboxResponse:
        async with self._call("create_sandbox", request) as again:
            if again is not None:
                return again
            check_sandbox_id(request.sandbox_id)
            name = check_name(request.template or "base", "template")
            template = self.templates.get(name)
            if template is None:
                raise NotFound(f"there is no template {name}")
            if request.sandbox_id in self.boxes:
                raise AlreadyExists(f"there is a sandbox {request.sandbox_id} already")
            if template.kind == "snapshot" and (
                request.cold
                or request.vcpus not in (0, template.vcpus)
                or request.mem_mib not in (0, template.mem_mib)
            ):
                raise InvalidInput("a snapshot's vCPUs and memory are those that were frozen")
            vcpus = request.vcpus or template.vcpus or 1
            mem_mib = request.mem_mib or template.mem_mib or 512
            SandboxSpec(id=request.sandbox_id, vcpus=vcpus, mem_mib=mem_mib, env=dict(request.env))
            checked_expiry(request.expiry)
            for address in request.dns:
                checked_address(address)
            if 0 < request.disk_mib < MIN_DISK_MIB:
                raise InvalidInput(f"a disk has at least {MIN_DISK_MIB} MiB")
            self._reserve(mem_mib)
            facts = self._facts(request.sandbox_id, name, vcpus, mem_mib, request.expiry)
            self.boxes[facts.id] = Box(
                facts=facts, guest=Guest(dict(request.env)), disk_mib=request.disk_mib or 4096
            )
            return self._answered(
                request,
                pb.CreateSandboxResponse(sandbox=copy(facts), phases=phases("slot", "vmm", "envd")),
            )
        raise AssertionError

    async def fork_sandbox(
        self, request: pb.ForkSandboxRequest, ctx: Any
    ) -> pb.ForkSandboxResponse:
        async with self._call("fork_sandbox", request) as again:
            if again is not None:
                return again
            check_children(len(request.child_ids))
            ids = [check_sandbox_id(child) for child in request.child_ids]
            if len({request.sandbox_id, *ids}) <= len(ids):
                raise InvalidInput("the children of a fork need ids of their own")
            for child in ids:
                if child in self.boxes:
                    raise AlreadyExists(f"there is a sandbox {child} already")
            box = self._changing(request.sandbox_id, request.call, "running", "paused")
            if box.facts.state == "running":
                box.facts.generation += 1
                box.facts.revision += 2
            children = [self._forked(box, child, request.expiry) for child in ids]
            if all(child.error for child in children):
                raise NoCapacity(children[0].error.message)
            return self._answered(
                request,
                pb.ForkSandboxResponse(
                    sandbox=copy(box.facts),
                    phases=phases("freeze", "write", "resume", "keep", "children"),
                    children=children,
                ),
            )
        raise AssertionError

    def _forked(self, source: Box, child: str, expiry: pb.Expiry | None) -> pb.ForkedChild:
        of = source.facts
        try:
            self._reserve(of.mem_mib)
        except NoCapacity as error:
            return pb.ForkedChild(sandbox_id=child, error=pb.ErrorDetail(**error.to_wire()))
        facts = self._facts(child, of.template, of.vcpus, of.mem_mib, expiry or of.expiry)
        facts.source, facts.generation = of.id, 1
        guest = Guest(dict(source.guest.env))
        guest.files.content = dict(source.guest.files.content)
        self.boxes[child] = Box(facts=facts, guest=guest, disk_mib=source.disk_mib)
        return pb.ForkedChild(
            sandbox_id=child,
            sandbox=copy(facts),
            phases=phases("disk", "vmm_load", "guest"),
            unique=["id", "access token"],
            shared=["what programs keep in memory"],
        )

    async def pause_sandbox(
        self, request: pb.PauseSandboxRequest, ctx: Any
    ) -> pb.PauseSandboxResponse:
        async with self._call("pause_sandbox", request) as again:
            if again is not None:
                return again
            box = self._changing(request.sandbox_id, request.call, "running")
            self._paused(box)
            return self._answered(
                request,
                pb.PauseSandboxResponse(sandbox=copy(box.facts), phases=phases("freeze", "store")),
            )
        raise AssertionError

    async def resume_sandbox(
        self, request: pb.ResumeSandboxRequest, ctx: Any
    ) -> pb.ResumeSandboxResponse:
        async with self._call("resume_sandbox", request) as again:
            if again is not None:
                return again
            wanted = ("paused", "error") if request.cold or request.discard else ("paused",)
            box = self._changing(request.sandbox_id, request.call, *wanted)
            self._reserve(box.facts.mem_mib)
            if request.expiry is not None:
                box.facts.expiry = checked_expiry(request.expiry)
            self.change(box.facts.id, "running", cause="")
            self._runs(box.facts)
            return self._answered(
                request,
                pb.ResumeSandboxResponse(
                    sandbox=copy(box.facts), phases=phases("vmm", "init"), is_cold=request.cold
                ),
            )
        raise AssertionError

    async def destroy_sandbox(
        self, request: pb.DestroySandboxRequest, ctx: Any
    ) -> pb.DestroySandboxResponse:
        async with self._call("destroy_sandbox", request) as again:
            if again is not None:
                return again
            box = self.boxes.get(check_sandbox_id(request.sandbox_id))
            if box is not None:
                self._changing(request.sandbox_id, request.call)
                box.guest.end()
                del self.boxes[request.sandbox_id]
            answer = pb.DestroySandboxResponse(existed=box is not None, phases=phases("kill"))
            return self._answered(request, answer)
        raise AssertionError

    async def set_expiry(self, request: pb.SetExpiryRequest, ctx: Any) -> pb.SetExpiryResponse:
        async with self._call("set_expiry"):
            facts = self._box(request.sandbox_id).facts
            facts.expiry = checked_expiry(request.expiry)
            self._expires(facts, is_set=True)
            return pb.SetExpiryResponse(sandbox=copy(facts))
        raise AssertionError

    async def ping_sandbox(
        self, request: pb.PingSandboxRequest, ctx: Any
    ) -> pb.PingSandboxResponse:
        async with self._call("ping_sandbox"):
            facts = self._running(request.sandbox_id).facts
            facts.active_unix_ms = now_ms()
            self._expires(facts)
            return pb.PingSandboxResponse(sandbox=copy(facts))
        raise AssertionError

    async def create_snapshot(
        self, request: pb.CreateSnapshotRequest, ctx: Any
    ) -> pb.CreateSnapshotResponse:
        async with self._call("create_snapshot", request) as again:
            if again is not None:
                return again
            check_name(request.name, "snapshot")
            known = self.templates.get(request.name)
            if known is not None and (known.kind == "image" or not request.overwrite):
                raise AlreadyExists(f"there is a template {request.name} already")
            box = self._changing(request.sandbox_id, request.call, "running", "paused")
            if box.facts.state == "running" and request.ends_paused:
                self._paused(box)
            else:
                box.facts.generation += 1
                box.facts.revision += 1
            template = pb.Template(
                name=request.name,
                kind="snapshot",
                vcpus=box.facts.vcpus,
                mem_mib=box.facts.mem_mib,
                size_bytes=1 << 20,
                created_unix_ms=now_ms(),
                tier="emulated",
                sandbox_id=box.facts.id,
            )
            self.templates[request.name] = template
            return self._answered(
                request,
                pb.CreateSnapshotResponse(
                    template=template, sandbox=copy(box.facts), phases=phases("freeze", "link")
                ),
            )
        raise AssertionError

    async def delete_snapshot(
        self, request: pb.DeleteSnapshotRequest, ctx: Any
    ) -> pb.DeleteSnapshotResponse:
        async with self._call("delete_snapshot"):
            known = self.templates.get(check_name(request.name, "snapshot"))
            if known is None:
                raise NotFound(f"there is no snapshot {request.name}")
            if known.kind == "image":
                raise InvalidInput(f"{request.name} is an image")
            del self.templates[request.name]
            return pb.DeleteSnapshotResponse()
        raise AssertionError

    async def list_templates(
        self, request: pb.ListTemplatesRequest, ctx: Any
    ) -> pb.ListTemplatesResponse:
        async with self._call("list_templates"):
            return pb.ListTemplatesResponse(templates=list(self.templates.values()))
        raise AssertionError

    async def read_console(
        self, request: pb.ReadConsoleRequest, ctx: Any
    ) -> pb.ReadConsoleResponse:
        async with self._call("read_console"):
            box = self._running(request.sandbox_id)
            piece = box.console[request.offset : request.offset + CHUNK]
            return pb.ReadConsoleResponse(content=piece, console=box.facts.generation + 1)
        raise AssertionError

    async def get_space(self, request: pb.GetSpaceRequest, ctx: Any) -> pb.GetSpaceResponse:
        async with self._call("get_space"):
            found = [
                *(
                    pb.Holding(kind=FROM[each.kind], name=each.name, total_bytes=each.size_bytes)
                    for each in self.templates.values()
                ),
                *(pb.Holding(kind="sandbox", name=each) for each in self.boxes),
            ]
            total = sum(each.total_bytes for each in found)
            return pb.GetSpaceResponse(holdings=found, total_bytes=total)
        raise AssertionError

    async def prune(self, request: pb.PruneRequest, ctx: Any) -> pb.PruneResponse:
        async with self._call("prune"):
            used = {box.facts.template for box in self.boxes.values()}
            items = []
            for each in list(self.templates.values()):
                if request.with_templates and each.kind == "snapshot" and each.name not in used:
                    items.append(
                        pb.PrunedThing(kind="template", name=each.name, why="no sandbox is of it")
                    )
                    if not request.is_dry_run:
                        del self.templates[each.name]
            return pb.PruneResponse(items=items)
        raise AssertionError

    async def exec(self, request: pb.ExecRequest, ctx: Any) -> pb.ExecResponse:
        async with self._call("exec"):
            guest = self._running(request.sandbox_id).guest
            process, events = guest.start(request.command or pb.CommandSpec())
            if request.stdin:
                process.stdin.put_nowait(request.stdin)
            process.stdin.put_nowait(None)
            output = {"stdout": b"", "stderr": b""}
            code = 124
            try:
                async with asyncio.timeout(request.timeout_s or 30):
                    async for event in following(process, events):
                        if event.event.field == "data":
                            data = event.event.value.output
                            output[data.field] += data.value
                        elif event.event.field == "end":
                            code = event.event.value.exit_code
            except TimeoutError:
                guest.kill(process, "SIGKILL")
            return pb.ExecResponse(
                stdout=output["stdout"], stderr=output["stderr"], exit_code=code, ms=1.5
            )
        raise AssertionError

    async def exec_stream(
        self, request: pb.ExecStreamRequest, ctx: Any
    ) -> AsyncIterator[pb.ExecStreamResponse]:
        async with self._call("exec_stream"):
            guest = self._running(request.sandbox_id).guest
            process, events = guest.start(
                request.command or pb.CommandSpec(), has_stdin=request.has_stdin
            )
            limit_s = request.timeout_s or FOREVER_S
            late = asyncio.get_running_loop().call_later(limit_s, guest.end_late, process)
            try:
                async for event in following(process, events):
                    yield pb.ExecStreamResponse(event=event)
            finally:
                late.cancel()
                guest.kill(process, "SIGKILL")

    async def start_background(
        self, request: pb.StartBackgroundRequest, ctx: Any
    ) -> pb.StartBackgroundResponse:
        async with self._call("start_background"):
            guest = self._running(request.sandbox_id).guest
            process, _ = guest.start(
                request.command or pb.CommandSpec(), tag=request.tag, has_stdin=False
            )
            process.followers.clear()
            return pb.StartBackgroundResponse(pid=process.pid, tag=process.tag)
        raise AssertionError

    async def list_processes(
        self, request: pb.ListProcessesRequest, ctx: Any
    ) -> pb.ListProcessesResponse:
        async with self._call("list_processes"):
            guest = self._running(request.sandbox_id).guest
            return pb.ListProcessesResponse(
                processes=[
                    pb.ListProcessesResponse.Process(pid=each.pid, tag=each.tag, command=each.spec)
                    for each in guest.processes.values()
                ]
            )
        raise AssertionError

    async def kill_process(
        self, request: pb.KillProcessRequest, ctx: Any
    ) -> pb.KillProcessResponse:
        async with self._call("kill_process"):
            guest = self._running(request.sandbox_id).guest
            if request.signal not in SIGNALS:
                raise InvalidInput(f"{request.signal} can't be sent")
            guest.kill(guest.find(request.process), request.signal)
            return pb.KillProcessResponse()
        raise AssertionError

    async def connect_process(
        self, request: pb.ConnectProcessRequest, ctx: Any
    ) -> AsyncIterator[pb.ConnectProcessResponse]:
        async with self._call("connect_process"):
            process = self._running(request.sandbox_id).guest.find(request.process)
            async for event in joining(process):
                yield pb.ConnectProcessResponse(event=event)

    async def send_input(self, request: pb.SendInputRequest, ctx: Any) -> pb.SendInputResponse:
        async with self._call("send_input"):
            process = self._running(request.sandbox_id).guest.find(request.process)
            process.stdin.put_nowait(request.data)
            return pb.SendInputResponse(is_taken=True)
        raise AssertionError

    async def close_input(self, request: pb.CloseInputRequest, ctx: Any) -> pb.CloseInputResponse:
        async with self._call("close_input"):
            process = self._running(request.sandbox_id).guest.find(request.process)
            process.stdin.put_nowait(None)
            return pb.CloseInputResponse()
        raise AssertionError

    async def attach_pty(
        self, request: pb.AttachPtyRequest, ctx: Any
    ) -> AsyncIterator[pb.AttachPtyResponse]:
        async with self._call("attach_pty"):
            guest = self._running(request.sandbox_id).guest
            if request.command is not None and request.command.cmd:
                process, events = guest.start(request.command, tag=request.tag, is_pty=True)
                process.size = (request.cols or 80, request.rows or 24)
                stream = following(process, events)
            else:
                from protobuf import Oneof

                if not request.tag:
                    raise InvalidInput("neither a command nor a tag was given")
                stream = joining(guest.find(pb.Selector(selector=Oneof("tag", request.tag))))
            async for event in stream:
                yield pb.AttachPtyResponse(event=event)

    async def resize_pty(self, request: pb.ResizePtyRequest, ctx: Any) -> pb.ResizePtyResponse:
        async with self._call("resize_pty"):
            process = self._running(request.sandbox_id).guest.find(request.process)
            process.size = (request.cols, request.rows)
            return pb.ResizePtyResponse()
        raise AssertionError

    async def write_file(
        self, request: AsyncIterator[pb.WriteFileRequest], ctx: Any
    ) -> pb.WriteFileResponse:
        async with self._call("write_file"):
            content = bytearray()
            target: Any = None
            async for message in request:
                if message.part.field == "target":
                    target = message.part.value
                    self._running(target.sandbox_id)
                elif target is None or target.path != NOWHERE:
                    content += message.part.value
            if target is None:
                raise InvalidInput("no file was named")
            self._running(target.sandbox_id).guest.files.write(target.path, bytes(content))
            return pb.WriteFileResponse(size=len(content))
        raise AssertionError

    async def read_file(
        self, request: pb.ReadFileRequest, ctx: Any
    ) -> AsyncIterator[pb.ReadFileResponse]:
        async with self._call("read_file"):
            files = self._running(request.sandbox_id).guest.files
            while request.path == ENDLESS:
                yield pb.ReadFileResponse(chunk=bytes(CHUNK))
                await asyncio.sleep(0)  # writing to a caller who left waits for nothing
            content = files.read(request.path)
            for at in range(0, len(content), CHUNK):
                yield pb.ReadFileResponse(chunk=content[at : at + CHUNK])

    async def list_directory(
        self, request: pb.ListDirectoryRequest, ctx: Any
    ) -> pb.ListDirectoryResponse:
        async with self._call("list_directory"):
            files = self._running(request.sandbox_id).guest.files
            return pb.ListDirectoryResponse(entries=files.list(request.path, request.depth))
        raise AssertionError

    async def make_directory(
        self, request: pb.MakeDirectoryRequest, ctx: Any
    ) -> pb.MakeDirectoryResponse:
        async with self._call("make_directory"):
            files = self._running(request.sandbox_id).guest.files
            return pb.MakeDirectoryResponse(entry=files.make_directory(request.path))
        raise AssertionError

    async def remove_path(self, request: pb.RemovePathRequest, ctx: Any) -> pb.RemovePathResponse:
        async with self._call("remove_path"):
            self._running(request.sandbox_id).guest.files.remove(request.path)
            return pb.RemovePathResponse()
        raise AssertionError

    async def stat_path(self, request: pb.StatPathRequest, ctx: Any) -> pb.StatPathResponse:
        async with self._call("stat_path"):
            files = self._running(request.sandbox_id).guest.files
            return pb.StatPathResponse(entry=files.entry(request.path))
        raise AssertionError

    async def get_sandbox_metrics(
        self, request: pb.GetSandboxMetricsRequest, ctx: Any
    ) -> pb.GetSandboxMetricsResponse:
        async with self._call("get_sandbox_metrics"):
            self._box(request.sandbox_id)
            point = pb.GetSandboxMetricsResponse.Point(
                unix_ms=now_ms(), cpu_percent=12.5, mem_bytes=64 << 20, disk_bytes=1 << 20
            )
            return pb.GetSandboxMetricsResponse(points=[point])
        raise AssertionError

    # Inside.

    @contextlib.asynccontextmanager
    async def _call(self, method: str, request: Any = None) -> AsyncIterator[Any]:
        """Yields the answer to give again, for a key that was answered before."""
        self.calls.append(method)
        self.open[method] += 1
        try:
            async with self._scripted(method, request) as again:
                yield again
        finally:
            self.open[method] -= 1

    @contextlib.asynccontextmanager
    async def _scripted(self, method: str, request: Any) -> AsyncIterator[Any]:
        for held in self.script.held.pop(method, []):
            held.reached.set()
            await asyncio.to_thread(held.released.wait)
        try:
            if self.script.failures[method]:
                raise self.script.failures[method].pop(0)
            yield self._again(request)
            if self.script.lost[method]:
                self.script.lost[method] -= 1
                raise ConnectError(Code.UNAVAILABLE, "the answer was lost")
        except Error as error:
            raise to_connect(error) from error

    def _again(self, request: Any) -> Any:
        key = request.call.idempotency_key if request is not None and request.call else ""
        if key not in self._answers:
            return None
        before, answer = self._answers[key]
        if before != (type(request), request.to_binary()):
            raise InvalidInput(f"the key {key} was used for another call")
        return answer

    def _answered(self, request: Any, answer: Any) -> Any:
        if request.call is not None and request.call.idempotency_key:
            asked = (type(request), request.to_binary())
            self._answers[request.call.idempotency_key] = (asked, answer)
        return answer

    def _box(self, sandbox_id: str) -> Box:
        box = self.boxes.get(check_sandbox_id(sandbox_id))
        if box is None:
            raise NotFound(f"there is no sandbox {sandbox_id}")
        return box

    def _running(self, sandbox_id: str) -> Box:
        box = self._box(sandbox_id)
        if box.facts.state != "running":
            raise WrongState(f"sandbox {sandbox_id} is {box.facts.state}")
        return box

    def _changing(self, sandbox_id: str, call: pb.Call | None, *wanted: str) -> Box:
        box = self._box(sandbox_id)
        if wanted and box.facts.state not in wanted:
            raise WrongState(f"sandbox {sandbox_id} is {box.facts.state}")
        has_expected = call is not None and call.has_field("expected_revision")
        if has_expected and call.expected_revision != box.facts.revision:
            raise WrongState(f"sandbox {sandbox_id} has revision {box.facts.revision}")
        return box

    def _paused(self, box: Box) -> None:
        box.facts.generation += 1
        self.change(box.facts.id, "paused", cause="")
        box.facts.expires_unix_ms = 0

    def _reserve(self, mem_mib: int) -> None:
        used = sum(b.facts.mem_mib for b in self.boxes.values() if b.facts.state == "running")
        if used + mem_mib > self.mem_mib:
            raise NoCapacity(f"{mem_mib} MiB are asked for, {self.mem_mib - used} MiB are free")

    def _facts(
        self, sandbox_id: str, template: str, vcpus: int, mem_mib: int, expiry: pb.Expiry | None
    ) -> pb.Sandbox:
        facts = pb.Sandbox(
            id=sandbox_id,
            state="running",
            template=template,
            tier="emulated",
            vcpus=vcpus,
            mem_mib=mem_mib,
            created_unix_ms=now_ms(),
            generation=0,
            revision=2,
            expiry=checked_expiry(expiry),
            is_kept=True,
            kernel_version="6.1",
            vmm_version="1",
            disk_bytes=1 << 20,
        )
        self._runs(facts)
        return facts

    def _runs(self, facts: pb.Sandbox) -> None:
        self._next_address += 1
        facts.address = f"198.18.{self._next_address >> 8}.{self._next_address & 255}"
        facts.active_unix_ms = now_ms()
        self._expires(facts)

    def _expires(self, facts: pb.Sandbox, *, is_set: bool = False) -> None:
        """Activity moves an idle time on; a deadline stands from when it was set."""
        seconds = facts.expiry.seconds
        is_deadline = facts.expiry.after is pb.Expiry.After.DEADLINE
        if seconds and is_deadline and facts.expires_unix_ms and not is_set:
            return
        facts.expires_unix_ms = now_ms() + seconds * 1000 if seconds else 0


def checked_expiry(expiry: pb.Expiry | None) -> pb.Expiry:
    """With what was not said filled in."""
    if expiry is None:
        expiry = pb.Expiry()
    if expiry.seconds >= 1 << 31:
        raise InvalidInput(f"a sandbox can't expire after {expiry.seconds} s")
    return pb.Expiry(
        after=expiry.after or pb.Expiry.After.IDLE,
        seconds=expiry.seconds,
        action=expiry.action or pb.Expiry.Action.PAUSE,
    )


def checked_address(text: str) -> None:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        raise InvalidInput(f"{text!r} is no address") from None


def copy(facts: pb.Sandbox) -> pb.Sandbox:
    return pb.Sandbox.from_binary(facts.to_binary())


def phases(*names: str) -> list[pb.Phase]:
    return [pb.Phase(name=name, ms=1.0) for name in names]


async def following(
    process: Process, events: "asyncio.Queue[pb.ProcessEvent]"
) -> AsyncIterator[pb.ProcessEvent]:
    while True:
        event = await events.get()
        yield event
        if event.event.field == "end":
            return


async def joining(process: Process) -> AsyncIterator[pb.ProcessEvent]:
    from protobuf import Oneof

    events: asyncio.Queue[pb.ProcessEvent] = asyncio.Queue()
    process.followers.append(events)
    try:
        start = pb.ProcessEvent.Start(pid=process.pid, tag=process.tag)
        yield pb.ProcessEvent(event=Oneof("start", start))
        async for event in following(process, events):
            yield event
    finally:
        process.followers.remove(events)


@contextmanager
def serving(agent: FakeHostAgent, path: Path) -> Iterator[None]:
    """Serve it over a Unix socket, in a thread with a loop of its own."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        with running(HostAgentServiceASGIApplication(agent), bound):
            yield
    path.unlink()


@contextmanager
def running(app: Any, bound: socket.socket) -> Iterator[None]:
    """An ASGI application under uvicorn in a thread, on a socket that is bound already.

    app: or a uvicorn.Config, which says how it is to be served.
    """
    plain = {"log_config": None, "access_log": False, "ws": "websockets-sansio"}
    config = app if isinstance(app, uvicorn.Config) else uvicorn.Config(app, **plain)
    config.timeout_graceful_shutdown = 2
    server = uvicorn.Server(config)
    bound.listen(64)
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()
