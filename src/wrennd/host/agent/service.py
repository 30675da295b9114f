"""The agent's RPCs: messages in, messages out. What is done is in the modules beside this one."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from connectrpc.request import RequestContext

from wrennd.core.errors import InvalidInput, NotFound
from wrennd.core.ids import check_sandbox_id
from wrennd.core.model import TerminalSize
from wrennd.core.sandboxes import Forked
from wrennd.gen.hostagent import hostagent_pb as pb
from wrennd.gen.hostagent.hostagent_connect import HostAgentService
from wrennd.host import forks
from wrennd.host.agent import messages
from wrennd.host.agent.activity import Activity
from wrennd.host.agent.admission import Admission
from wrennd.host.agent.catalogue import Catalogue, Seen
from wrennd.host.agent.departures import Departures
from wrennd.host.agent.facts import HostFacts
from wrennd.host.agent.files import CHUNKS, Files
from wrennd.host.agent.measuring import Measuring
from wrennd.host.agent.operations import Kind, Operations, Wanted
from wrennd.host.agent.processes import PIECES, Processes, command_of, name_of, tag_of
from wrennd.host.agent.sandboxes import Resume, Sandboxes
from wrennd.host.agent.streams import CallerLeft, Inlet, Outlet, Streams
from wrennd.host.record import Record, Terms

T = TypeVar("T")
Context = RequestContext[Any, Any]  # each method has a kind of its own; none is looked at
Asked = (
    pb.CreateSandboxRequest
    | pb.ForkSandboxRequest
    | pb.PauseSandboxRequest
    | pb.ResumeSandboxRequest
    | pb.DestroySandboxRequest
    | pb.SetExpiryRequest
    | pb.CreateSnapshotRequest
    | pb.DeleteSnapshotRequest
    | pb.StartBackgroundRequest
)
MAX_STDIN_BYTES = 16 << 20
DEFAULT_COLS, DEFAULT_ROWS = 80, 24


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the service is made of."""

    facts: HostFacts
    catalogue: Catalogue
    departures: Departures
    admission: Admission
    sandboxes: Sandboxes
    processes: Processes
    files: Files
    activity: Activity
    measuring: Measuring
    operations: Operations
    streams: Streams


class Service(HostAgentService):
    """`hostagent.v1.HostAgentService`. Errors of all methods: those of `core/errors.py`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def get_host(self, _request: pb.GetHostRequest, _ctx: Context) -> pb.GetHostResponse:
        facts = await self._call(self._parts.facts.get)  # may take a boot
        used = await self._look(self._parts.admission.used)
        return pb.GetHostResponse(
            installation=facts.installation,
            version=facts.version,
            tier=facts.tier,
            vmm=facts.vmm,
            vmm_version=facts.vmm_version,
            kernel=facts.kernel,
            envd_version=facts.envd_version,
            capacity=messages.capacity(used),
            started_unix_ms=facts.started_ms,
        )

    async def list_sandboxes(
        self, _request: pb.ListSandboxesRequest, _ctx: Context
    ) -> pb.ListSandboxesResponse:
        def work() -> pb.ListSandboxesResponse:
            found = self._parts.catalogue.all()
            departed = self._parts.departures.all({seen.id for seen in found})
            return pb.ListSandboxesResponse(
                installation=self._parts.facts.installation,
                sandboxes=[self._sandbox(seen) for seen in found],
                gone=[messages.gone(one) for one in departed],
            )

        return await self._look(work)

    async def get_sandbox(
        self, request: pb.GetSandboxRequest, _ctx: Context
    ) -> pb.GetSandboxResponse:
        return await self._look(
            lambda: pb.GetSandboxResponse(sandbox=self._get(request.sandbox_id))
        )

    async def create_sandbox(
        self, request: pb.CreateSandboxRequest, _ctx: Context
    ) -> pb.CreateSandboxResponse:
        wanted = messages.to_request(request)

        def work() -> pb.CreateSandboxResponse:
            seen, timings = self._parts.sandboxes.create(wanted)
            return pb.CreateSandboxResponse(
                sandbox=self._sandbox(seen), phases=messages.phases(timings)
            )

        return await self._operate("CreateSandbox", Kind.STARTS, request, work)

    async def fork_sandbox(
        self, request: pb.ForkSandboxRequest, _ctx: Context
    ) -> pb.ForkSandboxResponse:
        expiry = messages.to_expiry(request.expiry) if request.expiry is not None else None
        wanted = forks.wanted(request.sandbox_id, request.child_ids, expiry)

        def work() -> pb.ForkSandboxResponse:
            done = self._parts.sandboxes.fork(request.sandbox_id, _terms(request), wanted)
            seen, forked, timings = done
            return pb.ForkSandboxResponse(
                sandbox=self._sandbox(seen),
                phases=messages.phases(timings),
                children=[self._forked(each) for each in forked],
            )

        return await self._operate("ForkSandbox", Kind.STARTS, request, work)

    async def pause_sandbox(
        self, request: pb.PauseSandboxRequest, _ctx: Context
    ) -> pb.PauseSandboxResponse:
        def work() -> pb.PauseSandboxResponse:
            seen, timings = self._parts.sandboxes.pause(request.sandbox_id, _terms(request))
            return pb.PauseSandboxResponse(
                sandbox=self._sandbox(seen), phases=messages.phases(timings)
            )

        return await self._operate("PauseSandbox", Kind.STOPS, request, work)

    async def resume_sandbox(
        self, request: pb.ResumeSandboxRequest, _ctx: Context
    ) -> pb.ResumeSandboxResponse:
        expiry = messages.to_expiry(request.expiry) if request.expiry is not None else None
        wanted = Resume(is_cold=request.cold, discard=request.discard, expiry=expiry)

        def work() -> pb.ResumeSandboxResponse:
            seen, timings = self._parts.sandboxes.resume(
                request.sandbox_id, _terms(request), wanted
            )
            return pb.ResumeSandboxResponse(
                sandbox=self._sandbox(seen),
                phases=messages.phases(timings),
                is_cold=wanted.is_cold,
            )

        return await self._operate("ResumeSandbox", Kind.STARTS, request, work)

    async def destroy_sandbox(
        self, request: pb.DestroySandboxRequest, _ctx: Context
    ) -> pb.DestroySandboxResponse:
        terms = _terms(request, is_patient=True)

        def work() -> pb.DestroySandboxResponse:
            existed, timings = self._parts.sandboxes.destroy(request.sandbox_id, terms)
            return pb.DestroySandboxResponse(existed=existed, phases=messages.phases(timings))

        return await self._operate("DestroySandbox", Kind.ENDS, request, work)

    async def set_expiry(self, request: pb.SetExpiryRequest, _ctx: Context) -> pb.SetExpiryResponse:
        expiry = messages.to_expiry(request.expiry)

        def work() -> pb.SetExpiryResponse:
            seen = self._parts.sandboxes.set_expiry(request.sandbox_id, _terms(request), expiry)
            return pb.SetExpiryResponse(sandbox=self._sandbox(seen))

        return await self._operate("SetExpiry", Kind.ENDS, request, work)

    async def ping_sandbox(
        self, request: pb.PingSandboxRequest, _ctx: Context
    ) -> pb.PingSandboxResponse:
        def work() -> pb.PingSandboxResponse:
            seen = self._parts.catalogue.get(check_sandbox_id(request.sandbox_id))
            self._parts.activity.touch(request.sandbox_id)
            return pb.PingSandboxResponse(sandbox=self._sandbox(seen))

        return await self._look(work)

    async def create_snapshot(
        self, request: pb.CreateSnapshotRequest, _ctx: Context
    ) -> pb.CreateSnapshotResponse:
        def work() -> pb.CreateSnapshotResponse:
            seen, timings = self._parts.sandboxes.freeze(
                request.sandbox_id,
                request.name,
                _terms(request),
                ends_paused=request.ends_paused,
                overwrite=request.overwrite,
            )
            return pb.CreateSnapshotResponse(
                template=messages.template(self._parts.sandboxes.template(request.name)),
                sandbox=self._sandbox(seen),
                phases=messages.phases(timings),
            )

        return await self._operate("CreateSnapshot", Kind.STOPS, request, work)

    async def delete_snapshot(
        self, request: pb.DeleteSnapshotRequest, _ctx: Context
    ) -> pb.DeleteSnapshotResponse:
        def work() -> pb.DeleteSnapshotResponse:
            self._parts.sandboxes.remove_template(request.name)
            return pb.DeleteSnapshotResponse()

        return await self._operate("DeleteSnapshot", Kind.ENDS, request, work)

    async def list_templates(
        self, _request: pb.ListTemplatesRequest, _ctx: Context
    ) -> pb.ListTemplatesResponse:
        def work() -> pb.ListTemplatesResponse:
            images = [messages.image(one) for one in self._parts.sandboxes.images()]
            frozen = [messages.template(one) for one in self._parts.sandboxes.templates()]
            return pb.ListTemplatesResponse(templates=images + frozen)

        return await self._look(work)

    async def exec(self, request: pb.ExecRequest, _ctx: Context) -> pb.ExecResponse:
        if len(request.stdin) > MAX_STDIN_BYTES:
            raise InvalidInput(f"a command gets {MAX_STDIN_BYTES} bytes of input at most")
        command = command_of(request.command, has_stdin=bool(request.stdin))

        def work(outlet: Outlet[pb.ExecResponse]) -> None:
            self._parts.processes.run(
                request.sandbox_id, command, request.stdin, request.timeout_s, outlet
            )

        return await self._parts.streams.one(work)

    async def exec_stream(
        self, request: pb.ExecStreamRequest, _ctx: Context
    ) -> AsyncIterator[pb.ExecStreamResponse]:
        command = command_of(request.command, has_stdin=request.has_stdin)

        def work(outlet: Outlet[pb.ProcessEvent]) -> None:
            self._parts.processes.stream(request.sandbox_id, command, request.timeout_s, outlet)

        async with contextlib.aclosing(self._stream(work, PIECES)) as events:
            async for event in events:
                yield pb.ExecStreamResponse(event=event)

    async def start_background(
        self, request: pb.StartBackgroundRequest, _ctx: Context
    ) -> pb.StartBackgroundResponse:
        command, tag = command_of(request.command), tag_of(request.tag)

        def work() -> pb.StartBackgroundResponse:
            pid = self._parts.processes.start(request.sandbox_id, command, tag)
            return pb.StartBackgroundResponse(pid=pid, tag=tag)

        return await self._operate("StartBackground", Kind.CALLS, request, work)

    async def list_processes(
        self, request: pb.ListProcessesRequest, _ctx: Context
    ) -> pb.ListProcessesResponse:
        return await self._call(lambda: self._parts.processes.list(request.sandbox_id))

    async def kill_process(
        self, request: pb.KillProcessRequest, _ctx: Context
    ) -> pb.KillProcessResponse:
        name = name_of(request.process)
        await self._call(
            lambda: self._parts.processes.signal(request.sandbox_id, name, request.signal)
        )
        return pb.KillProcessResponse()

    async def connect_process(
        self, request: pb.ConnectProcessRequest, _ctx: Context
    ) -> AsyncIterator[pb.ConnectProcessResponse]:
        name = name_of(request.process)

        def work(outlet: Outlet[pb.ProcessEvent]) -> None:
            self._parts.processes.connect(request.sandbox_id, name, outlet)

        async with contextlib.aclosing(self._stream(work, PIECES)) as events:
            async for event in events:
                yield pb.ConnectProcessResponse(event=event)

    async def send_input(self, request: pb.SendInputRequest, _ctx: Context) -> pb.SendInputResponse:
        name = name_of(request.process)
        is_taken = await self._call(
            lambda: self._parts.processes.send_input(request.sandbox_id, name, request.data)
        )
        return pb.SendInputResponse(is_taken=is_taken)

    async def close_input(
        self, request: pb.CloseInputRequest, _ctx: Context
    ) -> pb.CloseInputResponse:
        name = name_of(request.process)
        await self._call(lambda: self._parts.processes.close_input(request.sandbox_id, name))
        return pb.CloseInputResponse()

    async def attach_pty(
        self, request: pb.AttachPtyRequest, _ctx: Context
    ) -> AsyncIterator[pb.AttachPtyResponse]:
        work = self._pty_work(request)
        async with contextlib.aclosing(self._stream(work, PIECES)) as events:
            async for event in events:
                yield pb.AttachPtyResponse(event=event)

    def _pty_work(self, request: pb.AttachPtyRequest) -> Callable[[Outlet[pb.ProcessEvent]], None]:
        processes, sandbox_id = self._parts.processes, request.sandbox_id
        if request.command is None or not request.command.cmd:
            if not request.tag:
                raise InvalidInput("neither a command nor the tag of a process was given")
            return lambda outlet: processes.connect(
                sandbox_id, request.tag, outlet, tag=request.tag
            )
        size = TerminalSize(cols=request.cols or DEFAULT_COLS, rows=request.rows or DEFAULT_ROWS)
        command, tag = command_of(request.command, terminal=size), tag_of(request.tag)
        return lambda outlet: processes.attach(sandbox_id, command, tag, outlet)

    async def resize_pty(self, request: pb.ResizePtyRequest, _ctx: Context) -> pb.ResizePtyResponse:
        name, size = name_of(request.process), TerminalSize(cols=request.cols, rows=request.rows)
        await self._call(lambda: self._parts.processes.resize(request.sandbox_id, name, size))
        return pb.ResizePtyResponse()

    async def write_file(
        self, request: AsyncIterator[pb.WriteFileRequest], _ctx: Context
    ) -> pb.WriteFileResponse:
        first = await anext(request, None)
        target = None if first is None or first.part is None else first.part.value
        if not isinstance(target, pb.WriteFileRequest.Target):
            raise InvalidInput("the first message of a file says where it goes")
        content = Inlet(CHUNKS)

        def work(outlet: Outlet[int]) -> None:
            self._parts.files.write(target.sandbox_id, target.path, target.user, content, outlet)

        feeding = asyncio.create_task(content.take(_chunks(request)))
        try:
            size = await self._parts.streams.one(work)
        finally:
            feeding.cancel()
            content.finish(CallerLeft())
        return pb.WriteFileResponse(size=size)

    async def read_file(
        self, request: pb.ReadFileRequest, _ctx: Context
    ) -> AsyncIterator[pb.ReadFileResponse]:
        def work(outlet: Outlet[bytes]) -> None:
            self._parts.files.read(request.sandbox_id, request.path, request.user, outlet)

        async with contextlib.aclosing(self._stream(work, CHUNKS)) as chunks:
            async for chunk in chunks:
                yield pb.ReadFileResponse(chunk=chunk)

    async def list_directory(
        self, request: pb.ListDirectoryRequest, _ctx: Context
    ) -> pb.ListDirectoryResponse:
        entries = await self._call(
            lambda: self._parts.files.list(
                request.sandbox_id, request.path, request.depth, request.user
            )
        )
        return pb.ListDirectoryResponse(entries=entries)

    async def make_directory(
        self, request: pb.MakeDirectoryRequest, _ctx: Context
    ) -> pb.MakeDirectoryResponse:
        entry = await self._call(
            lambda: self._parts.files.make(request.sandbox_id, request.path, request.user)
        )
        return pb.MakeDirectoryResponse(entry=entry)

    async def remove_path(
        self, request: pb.RemovePathRequest, _ctx: Context
    ) -> pb.RemovePathResponse:
        await self._call(
            lambda: self._parts.files.remove(request.sandbox_id, request.path, request.user)
        )
        return pb.RemovePathResponse()

    async def stat_path(self, request: pb.StatPathRequest, _ctx: Context) -> pb.StatPathResponse:
        entry = await self._call(
            lambda: self._parts.files.stat(request.sandbox_id, request.path, request.user)
        )
        return pb.StatPathResponse(entry=entry)

    async def get_sandbox_metrics(
        self, request: pb.GetSandboxMetricsRequest, _ctx: Context
    ) -> pb.GetSandboxMetricsResponse:
        def work() -> pb.GetSandboxMetricsResponse:
            self._parts.catalogue.get(check_sandbox_id(request.sandbox_id))
            found = self._parts.measuring.points(request.sandbox_id, request.seconds)
            return pb.GetSandboxMetricsResponse(points=[messages.point(one) for one in found])

        return await self._look(work)

    async def read_console(
        self, request: pb.ReadConsoleRequest, _ctx: Context
    ) -> pb.ReadConsoleResponse:
        def work() -> pb.ReadConsoleResponse:
            found = self._parts.sandboxes.console(request.sandbox_id, request.offset)
            return pb.ReadConsoleResponse(content=found.content, console=found.file)

        return await self._look(work)

    async def get_space(self, _request: pb.GetSpaceRequest, _ctx: Context) -> pb.GetSpaceResponse:
        return await self._call(lambda: messages.space(self._parts.sandboxes.space()))

    async def prune(self, request: pb.PruneRequest, _ctx: Context) -> pb.PruneResponse:
        wanted = Wanted(method="Prune", sandbox="", kind=Kind.ENDS)

        def work() -> pb.PruneResponse:
            done = self._parts.sandboxes.prune(
                is_dry_run=request.is_dry_run, with_templates=request.with_templates
            )
            return messages.pruning(done)

        return await self._parts.operations.run(wanted, work)

    async def _call(self, work: Callable[[], T]) -> T:
        return await self._parts.operations.call(work)

    async def _look(self, work: Callable[[], T]) -> T:
        return await self._parts.operations.call(work, Kind.LOOKS)

    async def _operate(self, method: str, kind: Kind, request: Asked, work: Callable[[], T]) -> T:
        call = request.call or pb.Call()
        wanted = Wanted(
            method=method,
            sandbox="" if isinstance(request, pb.DeleteSnapshotRequest) else request.sandbox_id,
            kind=kind,
            key=call.idempotency_key,
            content=_content(request),
            is_last=isinstance(request, pb.DestroySandboxRequest),
        )
        return await self._parts.operations.run(wanted, work)

    def _stream(self, work: Callable[[Outlet[T]], None], capacity: int) -> AsyncGenerator[T]:
        return self._parts.streams.run(work, capacity=capacity)

    def _get(self, sandbox_id: str) -> pb.Sandbox:
        return self._sandbox(self._parts.catalogue.get(check_sandbox_id(sandbox_id)))

    def _forked(self, done: Forked) -> pb.ForkedChild:
        """A child may be gone again by now."""
        with contextlib.suppress(NotFound):
            return messages.forked(done, None if done.error else self._get(done.id))
        return messages.forked(done, None)

    def _sandbox(self, seen: Seen) -> pb.Sandbox:
        disk_bytes = self._parts.measuring.disk_bytes(seen) if isinstance(seen, Record) else 0
        active_ms = self._parts.activity.last_ms(seen.id)
        return messages.sandbox(seen, active_ms=active_ms, disk_bytes=disk_bytes)


def _terms(request: Asked, *, is_patient: bool = False) -> Terms:
    call = request.call
    revision = None
    if call is not None and call.has_field("expected_revision"):
        revision = call.expected_revision
    return Terms(expected_revision=revision, is_patient=is_patient)


def _content(request: Asked) -> bytes:
    """The same for the same call, in whatever order its maps were sent."""
    return json.dumps(json.loads(request.to_json()), sort_keys=True).encode()


async def _chunks(request: AsyncIterator[pb.WriteFileRequest]) -> AsyncIterator[bytes]:
    """What follows a file's target. Errors: InvalidInput for another target."""
    async for message in request:
        chunk = None if message.part is None else message.part.value
        if not isinstance(chunk, bytes):
            raise InvalidInput("only the first message of a file says where it goes")
        yield chunk
