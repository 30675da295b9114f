"""What sandboxes are made from, and freezing one into it.

The host has one space of names, projects have one each: a template's row says what the host calls
it (`store/templates.py`).
"""

import secrets
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection

from wrennd.control import mirror
from wrennd.control.sandboxes import ASK_S, PAUSE_S, Done, Operations, Plan, call_of, is_definite
from wrennd.control.states import RowState
from wrennd.control.store import events, hosts, idempotency, templates
from wrennd.control.store.keys import DEFAULT_PROJECT
from wrennd.control.store.rows import SandboxRow, TemplateRow, now_ms
from wrennd.core.errors import AlreadyExists, Error, Forbidden, NotFound
from wrennd.core.ids import check_name
from wrennd.gen.hostagent import hostagent_pb as pb

BASE = "base"
# What the older API calls its default image.
ALIASES = {"minimal": BASE, "minimal-ubuntu": BASE}
DELETE_S = 60


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What was frozen; row None: that goes on."""

    name: str
    row: TemplateRow | None
    done: Done


class Templates:
    """Lists, finds, freezes and removes templates."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def find(self, project: str, name: str) -> TemplateRow:
        """Asks the host again before it says that there is none. Errors: NotFound."""
        database = self._operations.database
        for wanted in (name, ALIASES.get(name, "")):
            row = await database.read(lambda c, n=wanted: templates.find(c, project, n))  # type: ignore[misc]
            if row is not None:
                return row
        await self.sync()
        name = ALIASES.get(name, name)
        return await database.read(lambda c: templates.get(c, project, name))

    async def list(self, project: str) -> "list[TemplateRow]":
        """As the host has them now, or had when it answered last."""
        return await self._operations.database.read(lambda c: templates.list_all(c, project))

    async def sync(self) -> None:
        """Ask the host what it has. Errors: Unavailable."""
        answer = await self._operations.agent.rpc.list_templates(
            pb.ListTemplatesRequest(), timeout_ms=ASK_S * 1000
        )
        listed = [
            mirror.template_of(each, project=DEFAULT_PROJECT, host=hosts.LOCAL)
            for each in answer.templates
        ]
        await self._operations.database.run(lambda c: templates.sync(c, hosts.LOCAL, listed))

    async def freeze(
        self,
        project: str,
        sandbox_id: str,
        name: str,
        *,
        ends_paused: bool,
        overwrite: bool,
        key: str = "",
    ) -> Frozen:
        """Freeze a sandbox, running or paused, under a name.

        Errors: NotFound, WrongState, AlreadyExists, Forbidden (an image's name), the host's.
        """
        name = check_name(name, "snapshot") if name else f"snap-{secrets.token_hex(6)}"
        operations = self._operations
        if key:
            body = f"{sandbox_id} {ends_paused} {overwrite}".encode()
            known = await operations.database.run(
                lambda c: idempotency.claim(c, project, key, body, name)
            )
            if known != name:
                made = await operations.database.read(lambda c: templates.find(c, project, known))
                done = Done(row=await operations.get(project, sandbox_id))
                return Frozen(name=known, row=made, done=done)
        host_name = await self._host_name(project, name, overwrite=overwrite)
        wanted = {RowState.RUNNING, RowState.PAUSED}
        before, row = await operations.claim(project, sandbox_id, wanted, RowState.SNAPSHOTTING)
        frozen: list[TemplateRow] = []

        async def call(row: SandboxRow) -> pb.CreateSnapshotResponse:
            request = pb.CreateSnapshotRequest(
                call=call_of(row),
                sandbox_id=row.id,
                name=host_name,
                ends_paused=ends_paused,
                overwrite=overwrite,
            )
            answer = await operations.agent.rpc.create_snapshot(request, timeout_ms=PAUSE_S * 1000)
            frozen.append(await self._keep(project, name, host_name, answer.template))
            return answer

        plan = Plan(operation="snapshot", before=before, row=row, call=call)
        try:
            done = await operations.run(plan, operations.bounds.snapshot_s)
        except Error as error:
            if is_definite(error):
                await operations.database.run(lambda c: idempotency.release(c, project, name))
            raise
        return Frozen(name=name, row=frozen[0] if frozen else None, done=done)

    async def _host_name(self, project: str, name: str, *, overwrite: bool) -> str:
        def work(connection: Connection) -> str:
            known = templates.find(connection, project, name)
            if known is None:
                return templates.free_host_name(connection, name)
            if known.kind == mirror.IMAGE:
                raise Forbidden(f"{name} is the name of an image", hint="choose another name")
            if not overwrite:
                raise AlreadyExists(
                    f"there is a template {name} already", hint="overwrite=true replaces it"
                )
            return known.host_name

        return await self._operations.database.read(work)

    async def _keep(
        self, project: str, name: str, host_name: str, template: pb.Template | None
    ) -> TemplateRow:
        found = template or pb.Template(name=host_name, kind="snapshot")
        columns = vars(mirror.template_of(found, project=project, host=hosts.LOCAL))
        row = TemplateRow(**{**columns, "project": project, "name": name, "host_name": host_name})

        def work(connection: Connection) -> None:
            # The reconciler may have seen it first, as one of nobody's.
            for each in templates.list_host(connection, hosts.LOCAL):
                if each.host_name == host_name:
                    templates.remove(connection, each.project, each.name)
            templates.put(connection, row)
            event = {"name": name, "result": "ok", "at_ms": now_ms()}
            events.add(connection, project, "", "template.snapshot.create", event)

        await self._operations.database.run(work)
        return row

    async def remove(self, project: str, name: str) -> None:
        """Errors: NotFound, Forbidden (an image), the host's."""
        database = self._operations.database
        row = await database.read(lambda c: templates.get(c, project, name))
        if row.kind == mirror.IMAGE:
            raise Forbidden(
                f"{name} is an image, which belongs to everybody",
                hint="on the server's own machine: wrenn image rm",
            )
        request = pb.DeleteSnapshotRequest(call=pb.Call(idempotency_key=""), name=row.host_name)
        with suppress(NotFound):  # somebody removed it by the command
            await self._operations.agent.rpc.delete_snapshot(request, timeout_ms=DELETE_S * 1000)

        def work(connection: Connection) -> None:
            templates.remove(connection, project, name)
            event = {"name": name, "result": "ok"}
            events.add(connection, project, "", "template.snapshot.delete", event)

        await database.run(work)
