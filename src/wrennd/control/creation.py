"""How a sandbox is made: its template found, its row written, then the host asked."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from sqlalchemy import Connection

from wrennd.control import mirror
from wrennd.control.sandboxes import CREATE_S, Done, Operations, Plan, call_of, is_definite
from wrennd.control.states import RowState
from wrennd.control.store import hosts, idempotency, sandboxes
from wrennd.control.store.rows import Expiry, SandboxRow, TemplateRow, now_ms
from wrennd.control.templates import Templates
from wrennd.core.errors import Error, InvalidInput
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import DEFAULT_MEM_MIB, DEFAULT_VCPUS, SandboxRequest
from wrennd.gen.hostagent import hostagent_pb as pb

MAX_DISK_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A sandbox as it is asked for. None: as the template has it, or the default."""

    template: str = "base"
    vcpus: int | None = None
    mem_mib: int | None = None
    disk_mib: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    dns: tuple[str, ...] = ()
    expiry: Expiry = field(default_factory=Expiry)
    labels: Mapping[str, str] = field(default_factory=dict)
    is_cold: bool = False

    def __post_init__(self) -> None:
        self.to_request("0" * 20)
        if self.disk_mib is not None and not 1 <= self.disk_mib <= MAX_DISK_MIB:
            raise InvalidInput(
                f"{self.disk_mib} MiB of disk can't be given to a sandbox",
                hint=f"choose between 1 and {MAX_DISK_MIB}",
            )

    def to_request(self, sandbox_id: str) -> SandboxRequest:
        """Errors: InvalidInput."""
        return SandboxRequest(
            id=sandbox_id,
            template=self.template,
            vcpus=self.vcpus,
            mem_mib=self.mem_mib,
            dns=self.dns,
            env=self.env,
        )

    def to_bytes(self) -> bytes:
        """The same for the same wishes: what an Idempotency-Key is held to."""
        return json.dumps(asdict(self), sort_keys=True).encode()


class Creation:
    """Makes sandboxes; `Operations` does the rest of their lives."""

    def __init__(self, operations: Operations, templates: Templates) -> None:
        self._operations = operations
        self._templates = templates

    async def create(self, project: str, wanted: Wanted, key: str) -> Done:
        """A new sandbox, or the one that `key` stands for ("": none is asked for).

        Errors: NotFound (template), AlreadyExists (the key), and the host's.
        """
        template = await self._templates.find(project, wanted.template)
        fresh = _new_row(project, wanted, template)

        def work(connection: Connection) -> SandboxRow:
            if key:
                known = idempotency.claim(connection, project, key, wanted.to_bytes(), fresh.id)
                if known != fresh.id:
                    return sandboxes.get_owned(connection, project, known)
            sandboxes.add(connection, fresh)
            return fresh

        row = await self._operations.database.run(work)
        if row.id != fresh.id:
            return await self._again(row)
        plan = Plan(
            operation="create",
            before=None,
            row=row,
            call=lambda row: self._call(row, wanted, template, bool(key)),
            changes={"started_ms": now_ms(), "template": wanted.template},
        )
        return await self._operations.run(plan, self._operations.bounds.answer_s)

    async def _call(
        self, row: SandboxRow, wanted: Wanted, template: TemplateRow, has_key: bool
    ) -> pb.CreateSandboxResponse:
        request = pb.CreateSandboxRequest(
            call=call_of(row),
            sandbox_id=row.id,
            template=template.host_name,
            vcpus=wanted.vcpus or 0,
            mem_mib=wanted.mem_mib or 0,
            disk_mib=wanted.disk_mib or 0,
            env=dict(wanted.env),
            dns=list(wanted.dns),
            expiry=mirror.to_expiry(wanted.expiry),
            cold=wanted.is_cold,
        )
        try:
            return await self._operations.agent.rpc.create_sandbox(
                request, timeout_ms=CREATE_S * 1000
            )
        except Error as error:
            if has_key and is_definite(error):
                await self._operations.database.run(
                    lambda c: idempotency.release(c, row.project, row.id)
                )
            raise

    async def _again(self, row: SandboxRow) -> Done:
        if row.state is RowState.STARTING:
            row = await self._operations.settled(row, self._operations.bounds.answer_s)
        return Done(row=row, is_done=not row.state.is_passing)


def _new_row(project: str, wanted: Wanted, template: TemplateRow) -> SandboxRow:
    at = now_ms()
    return SandboxRow(
        id=new_sandbox_id(),
        project=project,
        host=hosts.LOCAL,
        state=RowState.STARTING,
        revision=1,
        host_revision=0,
        template=wanted.template,
        tier=template.tier,
        vcpus=wanted.vcpus or template.vcpus or DEFAULT_VCPUS,
        mem_mib=wanted.mem_mib or template.mem_mib or DEFAULT_MEM_MIB,
        disk_mib=wanted.disk_mib or 0,
        expiry=wanted.expiry,
        labels=dict(wanted.labels),
        versions={},
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
    )
