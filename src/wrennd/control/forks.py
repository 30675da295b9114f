"""Forks: one call to the host, and a row for each child from before it.

The source's row is SNAPSHOTTING until its host says that it runs again, which is long before the
call ends; that of a paused source stays as it is. A child's row is STARTING until then, and what
became of it is its newest event `forked`: that is what a repeated request is answered with.
Where nobody knows whether the host did it, children's rows stay, and the reconciler asks again.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from wrennd.control import mirror
from wrennd.control.sandboxes import CREATE_S, PAUSE_S, Done, Operations, Plan, call_of, is_definite
from wrennd.control.states import RowState, require
from wrennd.control.store import events, idempotency, sandboxes
from wrennd.control.store.rows import EventRow, Expiry, SandboxRow, now_ms
from wrennd.control.work import within
from wrennd.core.errors import Error
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import check_children
from wrennd.gen.hostagent import hostagent_pb as pb

OPERATION, OF_CHILD = "fork", "forked"
FORK_S = PAUSE_S + CREATE_S
LOOK_S = 0.1  # how often the host is asked whether the source runs again
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A fork as it is asked for. expiry: of the children; None: as the source's."""

    count: int = 1
    expiry: Expiry | None = None
    labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_children(self.count)

    def to_bytes(self) -> bytes:
        """The same for the same wishes: what an Idempotency-Key is held to."""
        return repr((self.count, self.expiry, sorted(self.labels.items()))).encode()


@dataclass(frozen=True, kw_only=True)
class Child:
    """One child; report: how it was made, None while it is being made."""

    row: SandboxRow
    report: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Forked:
    """done: of the source. children: in the order of their making."""

    done: Done
    children: tuple[Child, ...]

    @property
    def is_done(self) -> bool:
        return not any(child.row.state is RowState.STARTING for child in self.children)


class Forks:
    """Makes sandboxes of sandboxes."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def fork(self, project: str, sandbox_id: str, wanted: Wanted, key: str) -> Forked:
        """New children of a sandbox, or those that `key` stands for ("": none is asked for).

        Errors: NotFound, WrongState, AlreadyExists (the key), and the host's, when there are no
        children at all.
        """
        name = new_sandbox_id()
        begun = await self._operations.database.run(
            lambda c: _begin(c, project, sandbox_id, wanted, key, name)
        )
        if isinstance(begun, str):
            row = await self._operations.get(project, sandbox_id)
            return await self._found(Done(row=row), children_of(begun, wanted.count))
        before, row, children = begun
        doing = self._operations.work.start(row.id, self._do(before, row, children, wanted))
        for child in children:  # so that the reconciler leaves them to us
            self._operations.work.start(child.id, _ended(doing))
        try:
            done = await within(doing, self._operations.bounds.pause_s)
        except Error as error:
            if key and is_definite(error):
                await self._operations.database.run(lambda c: idempotency.release(c, project, name))
            raise
        if done is None:
            row = await self._operations.get(project, sandbox_id)
            done = Done(row=row, is_done=False)
        return await self._found(done, [child.id for child in children])

    async def _found(self, done: Done, ids: list[str]) -> Forked:
        def work(connection: Connection) -> tuple[Child, ...]:
            return tuple(_child(connection, done.row.project, each) for each in ids)

        return Forked(done=done, children=await self._operations.database.read(work))

    async def _do(
        self, before: SandboxRow, row: SandboxRow, children: list[SandboxRow], wanted: Wanted
    ) -> Done:
        """The fork to its end. Errors: the host's; the children's rows say the same."""
        plan = Plan(
            operation=OPERATION,
            before=before,
            row=row,
            call=self._calling(before, children, wanted),
        )
        try:
            return await self._operations.do(plan)
        except Error as error:
            if is_definite(error):
                for child in children:
                    await self._settle(child, pb.ForkedChild(error=_detail(error)))
            raise

    def _calling(
        self, before: SandboxRow, children: list[SandboxRow], wanted: Wanted
    ) -> Callable[[SandboxRow], Awaitable[pb.ForkSandboxResponse]]:
        async def call(row: SandboxRow) -> pb.ForkSandboxResponse:
            request = pb.ForkSandboxRequest(
                call=call_of(row),
                sandbox_id=row.id,
                child_ids=[child.id for child in children],
                expiry=mirror.to_expiry(wanted.expiry) if wanted.expiry else None,
            )
            following = asyncio.create_task(self._follow(before, row))
            try:
                answer = await self._operations.agent.rpc.fork_sandbox(
                    request, timeout_ms=FORK_S * 1000
                )
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            found = {child.sandbox_id: child for child in answer.children}
            for child in children:
                await self._settle(child, found.get(child.id) or pb.ForkedChild(error=_LEFT_OUT))
            return answer

        return call

    async def _follow(self, before: SandboxRow, row: SandboxRow) -> None:
        """Set the source's row as soon as it runs again: its users need not wait for children.

        What breaks here, the end of the call sets right.
        """
        while row.state is RowState.SNAPSHOTTING:
            await asyncio.sleep(LOOK_S)
            sandbox = await self._operations.ask(row.id)
            if sandbox is None or sandbox.revision < row.host_revision + 2:
                continue
            to = mirror.host_state(sandbox)
            if to is None or to.is_passing:
                continue
            data = {"from": row.state, "to": to, "reason": "it goes on"}
            row = await self._operations.settle(row, to, mirror.facts(sandbox), "state", data)

    async def _settle(self, child: SandboxRow, answer: pb.ForkedChild) -> None:
        """What became of a child, in its row and its events."""
        sandbox = answer.sandbox
        to = (mirror.host_state(sandbox) if sandbox else None) or RowState.STOPPED
        found: dict[str, Any] = {"address": "", "expires_ms": None}
        if sandbox is not None:
            found = {**mirror.facts(sandbox), "started_ms": now_ms()}
        elif answer.error is not None:
            found["error"] = answer.error.message
        phases = mirror.phases(answer.phases)
        data = {
            "result": answer.error.code if answer.error else "ok",
            "error": answer.error.message if answer.error else "",
            "hint": answer.error.hint if answer.error else "",
            "total_ms": round(sum(phase["ms"] for phase in phases), 1),
            "phases": phases,
            "state": to,
            "source": child.source,
            "unique": list(answer.unique),
            "shared": list(answer.shared),
        }
        await self._operations.settle(child, to, found, OF_CHILD, data)


_LEFT_OUT = pb.ErrorDetail(code=Error.code, message="the host said nothing of this child")


def _begin(
    connection: Connection, project: str, sandbox_id: str, wanted: Wanted, key: str, name: str
) -> tuple[SandboxRow, SandboxRow, list[SandboxRow]] | str:
    """The source's row before and after, and its children's; or the name of the fork that the key
    stands for already."""
    if key:
        body = sandbox_id.encode() + wanted.to_bytes()
        known = idempotency.claim(connection, project, key, body, name)
        if known != name:
            return known
    before = row = sandboxes.get_owned(connection, project, sandbox_id)
    require(row.id, row.state, RowState.RUNNING, RowState.PAUSED, reason=row.error)
    if row.state is RowState.RUNNING:
        before, row = sandboxes.begin(
            connection, project, sandbox_id, {RowState.RUNNING}, RowState.SNAPSHOTTING
        )
    children = [_new_row(before, each, wanted) for each in children_of(name, wanted.count)]
    for child in children:
        sandboxes.add(connection, child)
    return before, row, children


def children_of(name: str, count: int) -> list[str]:
    """The ids of a fork's children: the same for the same fork, and nobody else's."""
    ids = []
    for index in range(count):
        number = int.from_bytes(hashlib.sha256(f"{name} {index}".encode()).digest())
        digits = ""
        while len(digits) < len(name):
            number, digit = divmod(number, len(_DIGITS))
            digits += _DIGITS[digit]
        ids.append(digits)
    return ids


def _new_row(source: SandboxRow, child: str, wanted: Wanted) -> SandboxRow:
    at = now_ms()
    return replace(
        source,
        id=child,
        state=RowState.STARTING,
        revision=1,
        host_revision=0,
        expiry=wanted.expiry or source.expiry,
        labels={**source.labels, **wanted.labels},
        generation=0,
        address="",
        disk_bytes=0,
        error="",
        cause="",
        is_kept=True,
        created_ms=at,
        updated_ms=at,
        started_ms=None,
        active_ms=None,
        expires_ms=None,
        source=source.id,
    )


def _child(connection: Connection, project: str, child: str) -> Child:
    row = sandboxes.get_owned(connection, project, child)
    newest = events.list_newest(connection, child, events.KEPT)
    return Child(row=row, report=next(_reports(newest), None))


def _reports(found: list[EventRow]) -> Any:
    return (event.data for event in found if event.kind == OF_CHILD)


async def _ended(doing: "asyncio.Task[Done]") -> None:
    """As long as another task, whatever becomes of it."""
    await asyncio.wait({doing})


def _detail(error: Error) -> pb.ErrorDetail:
    return pb.ErrorDetail(**error.to_wire())
