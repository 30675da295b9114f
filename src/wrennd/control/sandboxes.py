"""What is done to sandboxes: create, pause, resume, destroy, extend.

Each operation claims the row (compare-and-set), then runs as a task that outlives its caller: the
host agent's call, then the row as the host says it is. Where nobody knows whether the host did it
(`Unavailable`, not unsent), the row keeps its passing state, and the reconciler asks again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from wrennd.control import mirror
from wrennd.control.agent_client import AgentClient
from wrennd.control.bus import Bus
from wrennd.control.metrics import Metrics
from wrennd.control.settings import Bounds
from wrennd.control.states import RowState, require
from wrennd.control.store import events, sandboxes
from wrennd.control.store.database import Database
from wrennd.control.store.rows import EventRow, Expiry, SandboxRow, now_ms
from wrennd.control.work import Work, within
from wrennd.core.errors import Error, NotFound, Unavailable, WrongState
from wrennd.gen.hostagent import hostagent_pb as pb

CREATE_S, PAUSE_S, RESUME_S, DESTROY_S, ASK_S = 240, 600, 300, 180, 10
ENDED = frozenset({RowState.DESTROYING, RowState.STOPPED})
EVERY_STATE = frozenset(RowState) - {RowState.STOPPED}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Done:
    """A sandbox after an operation. phases empty: it is not done yet, and goes on."""

    row: SandboxRow
    is_done: bool = True
    total_ms: float = 0.0
    phases: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An operation on a claimed sandbox. `before`: what its row was, to which it may go back."""

    operation: str
    before: SandboxRow | None
    row: SandboxRow
    call: Callable[[SandboxRow], Awaitable[Any]]
    changes: Mapping[str, Any] = field(default_factory=dict)


class Operations:
    """Owns the moves of rows by request; `reconciler.py` those that hosts bring about."""

    def __init__(
        self,
        *,
        database: Database,
        agent: AgentClient,
        work: Work,
        bus: Bus,
        metrics: Metrics,
        bounds: Bounds,
    ) -> None:
        self.database = database
        self.agent = agent
        self.work = work
        self.bus = bus
        self.metrics = metrics
        self.bounds = bounds

    async def get(self, project: str, sandbox_id: str) -> SandboxRow:
        """Errors: NotFound."""
        return await self.database.read(lambda c: sandboxes.get_owned(c, project, sandbox_id))

    async def pause(self, project: str, sandbox_id: str) -> Done:
        """Errors: NotFound, WrongState, and the host's."""
        before, row = await self.claim(project, sandbox_id, {RowState.RUNNING}, RowState.PAUSING)

        async def call(row: SandboxRow) -> pb.PauseSandboxResponse:
            request = pb.PauseSandboxRequest(call=call_of(row), sandbox_id=row.id)
            return await self.agent.rpc.pause_sandbox(request, timeout_ms=PAUSE_S * 1000)

        plan = Plan(operation="pause", before=before, row=row, call=call)
        return await self.run(plan, self.bounds.pause_s)

    async def resume(
        self,
        project: str,
        sandbox_id: str,
        *,
        cold: bool = False,
        discard: bool = False,
        expiry: Expiry | None = None,
    ) -> Done:
        """Errors: NotFound, WrongState, and the host's."""
        wanted = {RowState.PAUSED, RowState.ERROR}
        before, row = await self.claim(project, sandbox_id, wanted, RowState.RESUMING)

        async def call(row: SandboxRow) -> pb.ResumeSandboxResponse:
            request = pb.ResumeSandboxRequest(
                call=call_of(row),
                sandbox_id=row.id,
                cold=cold,
                discard=discard,
                expiry=mirror.to_expiry(expiry) if expiry else None,
            )
            return await self.agent.rpc.resume_sandbox(request, timeout_ms=RESUME_S * 1000)

        plan = Plan(
            operation="resume", before=before, row=row, call=call, changes={"started_ms": now_ms()}
        )
        return await self.run(plan, self.bounds.answer_s)

    async def destroy(self, project: str, sandbox_id: str) -> Done:
        """Whatever it is doing; one that is stopped stays so. Errors: NotFound, the host's."""
        row = await self.get(project, sandbox_id)
        if row.state is RowState.STOPPED:
            return Done(row=row)
        _, row = await self.claim(project, sandbox_id, EVERY_STATE, RowState.DESTROYING)
        return await self.run(self.destruction(row), self.bounds.pause_s)

    def destruction(self, row: SandboxRow) -> Plan:
        """Of a row that is DESTROYING already: it can't become anything else."""

        async def call(row: SandboxRow) -> pb.DestroySandboxResponse:
            request = pb.DestroySandboxRequest(
                call=pb.Call(idempotency_key=f"{row.id}-{row.revision}"), sandbox_id=row.id
            )
            return await self.agent.rpc.destroy_sandbox(request, timeout_ms=DESTROY_S * 1000)

        return Plan(operation="destroy", before=None, row=row, call=call)

    async def extend(self, project: str, sandbox_id: str, expiry: Expiry) -> SandboxRow:
        """Set when it expires. Errors: NotFound, WrongState, the host's."""
        row = await self.get(project, sandbox_id)
        _require_alive(row)
        request = pb.SetExpiryRequest(sandbox_id=row.id, expiry=mirror.to_expiry(expiry))
        answer = await self.agent.rpc.set_expiry(request, timeout_ms=ASK_S * 1000)
        return await self.follow(row, answer.sandbox)

    async def ping(self, project: str, sandbox_id: str) -> None:
        """Errors: NotFound, WrongState, the host's."""
        row = await self.get(project, sandbox_id)
        _require_alive(row)
        request = pb.PingSandboxRequest(sandbox_id=row.id)
        await self.agent.rpc.ping_sandbox(request, timeout_ms=ASK_S * 1000)

    async def ready(self, project: str, sandbox_id: str) -> SandboxRow:
        """One that runs; one that is on its way is waited for. Errors: NotFound, WrongState."""
        row = await self.get(project, sandbox_id)
        if row.state.is_coming:
            row = await self.settled(row, self.bounds.ready_s)
        require(row.id, row.state, RowState.RUNNING, reason=row.error)
        return row

    async def settled(self, row: SandboxRow, seconds: float) -> SandboxRow:
        """The row once its state is no passing one, or after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                with self.bus.listen(row.project) as listener:
                    row = await self.get(row.project, row.id)
                    while row.state.is_passing and await listener.get() is not None:
                        row = await self.get(row.project, row.id)
        except TimeoutError:
            pass
        return row

    async def claim(
        self,
        project: str,
        sandbox_id: str,
        wanted: "set[RowState] | frozenset[RowState]",
        to: RowState,
    ) -> tuple[SandboxRow, SandboxRow]:
        """The row before and after; one wins, the others get WrongState."""
        return await self.database.run(
            lambda c: sandboxes.begin(c, project, sandbox_id, wanted, to)
        )

    async def run(self, plan: Plan, seconds: float) -> Done:
        """Do it in a task; after `seconds` answer with what the sandbox is meanwhile."""
        done = await within(self.work.start(plan.row.id, self.do(plan)), seconds)
        if done is not None:
            if plan.before is not None and done.row.state in ENDED:
                # It was done, and undone by whoever destroyed it meanwhile.
                require(done.row.id, done.row.state, plan.row.state)
            return done
        return Done(row=await self.get(plan.row.project, plan.row.id), is_done=False)

    async def do(self, plan: Plan) -> Done:
        """The operation itself, to its end: for a task of `work`. Errors: the host's."""
        started = time.monotonic()
        try:
            answer = await self._called(plan)
        except Error as error:
            await self._failed(plan, error, (time.monotonic() - started) * 1000)
            raise
        total_ms = round((time.monotonic() - started) * 1000, 1)
        phases = mirror.phases(answer.phases)
        row = await self._succeeded(plan, getattr(answer, "sandbox", None), total_ms, phases)
        self._measure(plan, "ok", total_ms, phases)
        return Done(row=row, total_ms=total_ms, phases=phases)

    async def _called(self, plan: Plan) -> Any:
        """Once more when the host's record had moved on, but to nothing that stands in the way."""
        try:
            return await plan.call(plan.row)
        except WrongState:
            if plan.before is None or plan.before.host_revision == 0:
                raise
            now = await self.ask(plan.row.id)
            if now is None or now.state != plan.before.state:
                raise
            if now.revision == plan.before.host_revision:
                raise
            return await plan.call(_with_host_revision(plan.row, now.revision))

    async def ask(self, sandbox_id: str) -> pb.Sandbox | None:
        """What its host says of it now. Errors: the host's."""
        request = pb.GetSandboxRequest(sandbox_id=sandbox_id)
        answer = await self.agent.rpc.get_sandbox(request, timeout_ms=ASK_S * 1000)
        return answer.sandbox

    async def _succeeded(
        self, plan: Plan, sandbox: pb.Sandbox | None, total_ms: float, phases: list[dict[str, Any]]
    ) -> SandboxRow:
        found = mirror.facts(sandbox) if sandbox else {"address": "", "expires_ms": None}
        to = (mirror.host_state(sandbox) if sandbox else None) or RowState.STOPPED
        data = {"result": "ok", "total_ms": total_ms, "phases": phases, "state": to}
        return await self.settle(plan.row, to, {**found, **plan.changes}, plan.operation, data)

    async def _failed(self, plan: Plan, error: Error, total_ms: float) -> None:
        """Put the row where the host says the sandbox is. The error itself goes to the caller."""
        data = {
            "result": error.code,
            "error": str(error),
            "total_ms": round(total_ms, 1),
            "phases": [],
        }
        self._measure(plan, error.code, total_ms, [])
        to, found = await self._after(plan, error)
        if to is not None:
            found = {**found, "error": found.get("error") or _reason(to, error)}
        await self.settle(plan.row, to or plan.row.state, found, plan.operation, data)

    async def _after(self, plan: Plan, error: Error) -> tuple[RowState | None, dict[str, Any]]:
        """Where a failed operation left its sandbox; None: nobody knows yet."""
        is_unsent = isinstance(error, Unavailable) and error.is_unsent
        if is_unsent and plan.before is not None:
            return plan.before.state, {}
        if is_unsent and plan.operation == "create":
            return RowState.STOPPED, {}
        try:
            sandbox = await self.ask(plan.row.id)
        except NotFound:
            is_end = plan.row.state in (RowState.STARTING, RowState.DESTROYING)
            return (RowState.STOPPED if is_end else RowState.MISSING), {"address": ""}
        except Error:
            return None, {}
        if sandbox is None or plan.row.state is RowState.DESTROYING:
            return None, {}
        to = mirror.host_state(sandbox)
        return (None, {}) if to is None or to.is_passing else (to, mirror.facts(sandbox))

    async def settle(
        self,
        row: SandboxRow,
        to: RowState,
        found: Mapping[str, Any],
        operation: str,
        data: dict[str, Any],
    ) -> SandboxRow:
        """Move a row and write down what happened; a row that was moved on meanwhile stays."""

        def work(connection: Connection) -> tuple[SandboxRow, EventRow]:
            event = events.add(connection, row.project, row.id, operation, data)
            moved = None
            if to is not row.state or found:
                moved = sandboxes.mirror(connection, row, to, found)
            return moved or sandboxes.get_owned(connection, row.project, row.id), event

        now, event = await self.database.run(work)
        self.bus.tell(event, now)
        return now

    async def follow(self, row: SandboxRow, sandbox: pb.Sandbox | None) -> SandboxRow:
        """Set what the host says beside the state, which stays."""
        if sandbox is None:
            return row
        found = mirror.changes(row, mirror.facts(sandbox))

        def work(connection: Connection) -> SandboxRow:
            sandboxes.refresh(connection, row, found)
            return sandboxes.get_owned(connection, row.project, row.id)

        return await self.database.run(work) if found else row

    def _measure(
        self, plan: Plan, result: str, total_ms: float, phases: list[dict[str, Any]]
    ) -> None:
        operation = plan.operation
        self.metrics.operations.labels(operation, result).observe(total_ms / 1000)
        for phase in phases:
            self.metrics.phases.labels(operation, phase["name"]).observe(phase["ms"] / 1000)
        extra = {"operation": operation, "sandbox": plan.row.id, "result": result}
        log.info("operation", extra={**extra, "ms": round(total_ms, 1)})


def call_of(row: SandboxRow) -> pb.Call:
    """What goes with a change of a sandbox whose record we have seen."""
    # The revision that is asked for is part of the key: asking for another is another request.
    key = f"{row.id}-{row.revision}-{row.host_revision}"
    if row.host_revision == 0:
        return pb.Call(idempotency_key=key)
    return pb.Call(idempotency_key=key, expected_revision=row.host_revision)


def is_definite(error: Error) -> bool:
    """Whether it is known that what was asked for was not done."""
    return not isinstance(error, Unavailable) or error.is_unsent


def _with_host_revision(row: SandboxRow, revision: int) -> SandboxRow:
    return SandboxRow.of({**row.to_columns(), "host_revision": revision})


def _require_alive(row: SandboxRow) -> None:
    if row.state in (RowState.STOPPED, RowState.MISSING, RowState.DESTROYING):
        raise WrongState(f"sandbox {row.id} is {row.state}", hint="make another one")


def _reason(to: RowState, error: Error) -> str:
    return str(error) if to in (RowState.STOPPED, RowState.MISSING) else ""
