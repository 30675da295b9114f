"""The loop around `reconcile.decide`: asks the host every few seconds, and does what follows.

`poke()` makes it ask at once: whoever was told that the database is behind does that. It keeps the
host's status, its templates, and the numbers of each minute (`store/usage.py`) as well.
"""

import asyncio
import logging
from typing import Any

from sqlalchemy import Connection

from wrennd.control import mirror
from wrennd.control.reconcile import Action, Adopt, Destroy, Move, Refresh, Report, decide
from wrennd.control.sandboxes import ASK_S, DESTROY_S, Operations
from wrennd.control.states import RowState
from wrennd.control.store import events, hosts, sandboxes, usage
from wrennd.control.store.keys import DEFAULT_PROJECT
from wrennd.control.store.rows import EventRow, HostRow, SandboxRow, now_ms
from wrennd.control.templates import Templates
from wrennd.core.errors import AlreadyExists, Error, Unavailable
from wrennd.gen.hostagent import hostagent_pb as pb

TEMPLATES_EVERY_MS = 30_000
SEEN_EVERY_MS = 30_000  # how fresh "last seen" is: what changes nothing is not written
FREE, DRIFT = "disk_bytes_free", 0.01  # so large a part of the disk is worth a write

log = logging.getLogger(__name__)


class Reconciler:
    """One host's. `run()` is its loop; `once()` a turn of it."""

    def __init__(
        self,
        operations: Operations,
        templates: Templates,
        *,
        every_s: float,
        grace_s: float,
        host: str = hosts.LOCAL,
    ) -> None:
        self._operations = operations
        self._templates = templates
        self._every_s = every_s
        self._grace_ms = int(grace_s * 1000)
        self._host = host
        self._poked = asyncio.Event()
        self._since: dict[str, int] = {}
        self._templates_ms = 0
        self._has_run = False
        self._noted: tuple[int, list[usage.Count]] = (0, [])

    @property
    def has_run(self) -> bool:
        """Whether database and host were compared since the start: before that rows may be old."""
        return self._has_run

    def poke(self) -> None:
        self._poked.set()

    async def run(self) -> None:
        """For ever. What breaks a turn is logged: the next one may do better."""
        while True:
            self._poked.clear()
            try:
                await self.once()
            except Unavailable as error:
                log.warning("not reconciled", extra={"reason": str(error)})
            except Exception:  # the loop's outermost frame
                log.exception("reconciling broke")
            try:
                async with asyncio.timeout(self._every_s):
                    await self._poked.wait()
            except TimeoutError:
                pass

    async def once(self) -> list[Action]:
        """Compare, act, and say what was done. Errors: Unavailable, for the database."""
        rows = await self._operations.database.read(lambda c: sandboxes.list_host(c, self._host))
        try:
            report = await self._ask()
        except Error as error:
            await self._mark("unreachable", str(error))
            return []
        if report is None:
            return []
        actions = decide(rows, report)
        await self._refresh([each for each in actions if isinstance(each, Refresh)])
        for action in actions:
            await self._act(action)
        await self._look_after(report.now_ms)
        self._has_run = True
        return actions

    async def _ask(self) -> Report | None:
        """None: this host is not the one that the rows are about."""
        rpc = self._operations.agent.rpc
        answer = await rpc.get_host(pb.GetHostRequest(), timeout_ms=ASK_S * 1000)
        listed = await rpc.list_sandboxes(pb.ListSandboxesRequest(), timeout_ms=ASK_S * 1000)
        if not await self._welcome(answer):
            return None
        now = now_ms()
        found = {sandbox.id: sandbox for sandbox in listed.sandboxes}
        self._since = {each: self._since.get(each, now) for each in found}
        stopped = await self._operations.database.read(lambda c: sandboxes.stopped_of(c, found))
        # Read after the host was asked: what began meanwhile is left alone as well.
        return Report(
            sandboxes=found,
            now_ms=now,
            grace_ms=self._grace_ms,
            gone={each.id: each.cause for each in listed.gone},
            busy=self._operations.work.busy(),
            stopped=stopped,
            since=self._since,
        )

    async def _welcome(self, answer: pb.GetHostResponse) -> bool:
        known = await self._row()
        if known.installation not in ("", answer.installation):
            reason = (
                f"the agent serves installation {answer.installation}, but this database is "
                f"about {known.installation}"
            )
            await self._mark("foreign", reason)
            return False
        facts = host_facts(answer)
        is_news = known.status != "online" or is_other(known.facts, facts)
        if is_news or (known.seen_ms or 0) < now_ms() - SEEN_EVERY_MS:
            await self._operations.database.run(
                lambda c: hosts.mark_online(c, self._host, answer.installation, facts)
            )
        self._operations.metrics.hosts.labels(self._host).set(1)
        if known.status != "online":
            log.info("the host answers", extra={"host": self._host})
        return True

    async def _mark(self, status: str, reason: str) -> None:
        self._operations.metrics.hosts.labels(self._host).set(0)
        known = await self._row()
        if known.status != status:
            log.warning("the host is " + status, extra={"host": self._host, "reason": reason})
        if (known.status, known.reason) != (status, reason):
            await self._operations.database.run(lambda c: hosts.mark(c, self._host, status, reason))

    async def _row(self) -> HostRow:
        database = self._operations.database
        found = await database.read(lambda c: hosts.get(c, self._host))
        if found is not None:
            return found
        return await database.run(lambda c: hosts.ensure(c, self._host))

    async def _act(self, action: Action) -> None:
        self._operations.metrics.reconciled.labels(type(action).__name__.lower()).inc()
        match action:
            case Move():
                await self._move(action)
            case Refresh():
                pass  # done for all at once
            case Adopt():
                await self._adopt(action.sandbox)
            case Destroy():
                self._destroy(action)

    async def _refresh(self, found: list[Refresh]) -> None:
        """In one transaction: each is written through to the disk."""

        def work(connection: Connection) -> None:
            for each in found:
                sandboxes.refresh(connection, each.row, each.changes)

        if found:
            await self._operations.database.run(work)

    async def _move(self, action: Move) -> None:
        row = action.row
        log.info(
            "a sandbox is not what it was",
            extra={"sandbox": row.id, "was": row.state, "is": action.to, "reason": action.reason},
        )
        data = {"from": row.state, "to": action.to, "reason": action.reason}

        def work(connection: Connection) -> tuple[SandboxRow, EventRow] | None:
            moved = sandboxes.mirror(connection, row, action.to, action.changes)
            if moved is None:
                return None
            return moved, events.add(connection, row.project, row.id, "state", data)

        done = await self._operations.database.run(work)
        if done is not None:
            self._operations.bus.tell(done[1], done[0])

    async def _adopt(self, sandbox: pb.Sandbox) -> None:
        row = mirror.adopted(sandbox, project=DEFAULT_PROJECT, host=self._host, now_ms=now_ms())

        def work(connection: Connection) -> EventRow | None:
            try:
                with connection.begin_nested():
                    sandboxes.add(connection, row)
            except AlreadyExists:
                return None
            data = {"to": row.state, "reason": "made without the server"}
            return events.add(connection, row.project, row.id, "adopted", data)

        event = await self._operations.database.run(work)
        if event is not None:
            log.info("adopted a sandbox", extra={"sandbox": row.id})
            self._operations.bus.tell(event, row)

    def _destroy(self, action: Destroy) -> None:
        operations = self._operations
        if action.row is not None:
            plan = operations.destruction(action.row)
            operations.work.start(action.row.id, operations.do(plan))
            return
        log.warning("removing what no row knows", extra={"sandbox": action.sandbox_id})
        request = pb.DestroySandboxRequest(sandbox_id=action.sandbox_id)
        call = operations.agent.rpc.destroy_sandbox(request, timeout_ms=DESTROY_S * 1000)
        operations.work.start(action.sandbox_id, call)

    async def _look_after(self, now: int) -> None:
        """What goes with a turn: templates now and then, the minute's numbers, the gauges."""
        if now - self._templates_ms >= TEMPLATES_EVERY_MS:
            await self._templates.sync()
            self._templates_ms = now
        counts = await self._operations.database.read(usage.count)
        noted = (now // usage.MINUTE_MS, counts)
        if noted != self._noted:
            await self._operations.database.run(lambda c: usage.note(c, now, counts))
            self._noted = noted
        for state in RowState:
            number = sum(each.count for each in counts if each.state is state)
            self._operations.metrics.sandboxes.labels(state.value).set(number)


def is_other(known: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether a host's facts changed by more than free bytes do all the time by themselves."""
    before, now = known.get("capacity", {}), found["capacity"]
    drift = abs(before.get(FREE, 0) - now[FREE])
    steady = {**found, "capacity": {**now, FREE: before.get(FREE)}}
    return drift > now["disk_bytes"] * DRIFT or steady != known


def host_facts(answer: pb.GetHostResponse) -> dict[str, Any]:
    """As they are stored and shown."""
    capacity = answer.capacity or pb.Capacity()
    return {
        "version": answer.version,
        "tier": answer.tier,
        "vmm": answer.vmm,
        "vmm_version": answer.vmm_version,
        "kernel": answer.kernel,
        "envd_version": answer.envd_version,
        "started_ms": answer.started_unix_ms,
        "capacity": {
            "memory_mib": capacity.mem_mib,
            "memory_mib_reserved": capacity.mem_mib_reserved,
            "disk_bytes": capacity.disk_bytes,
            "disk_bytes_free": capacity.disk_bytes_free,
            "disk_bytes_reserved": capacity.disk_bytes_reserved,
            "cpus": capacity.cpus,
            "vcpus_given": capacity.vcpus_given,
        },
    }
