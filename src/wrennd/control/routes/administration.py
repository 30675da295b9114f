"""/v1/keys and /v1/hosts."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from wrennd.control.routes.parameters import LOOKS, CallerOf, ServicesOf, failures
from wrennd.control.shapes import to_time
from wrennd.control.store import hosts, keys
from wrennd.control.store.rows import HostRow, KeyRow
from wrennd.core.errors import NotFound

router = APIRouter()
KeyId = Annotated[str, Path(pattern=r"^[a-z0-9]{20}$")]
ADMIN = failures(403)


class CreateKeyShape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[ -~]+$")]
    project: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")] | None = None


class KeyShape(BaseModel):
    id: str
    name: str
    project: str
    prefix: str
    created_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewKeyShape(KeyShape):
    key: str


class KeyListShape(BaseModel):
    keys: list[KeyShape]


class CapacityShape(BaseModel):
    memory_mib: int = 0
    memory_mib_reserved: int = 0
    disk_bytes: int = 0
    disk_bytes_free: int = 0
    disk_bytes_reserved: int = 0
    cpus: int = 0
    vcpus_given: int = 0


class HostShape(BaseModel):
    id: str
    status: str
    reason: str
    last_seen_at: datetime | None
    installation: str
    version: str = ""
    tier: str = ""
    vmm: str = ""
    vmm_version: str = ""
    kernel: str = ""
    envd_version: str = ""
    started_at: datetime | None = None
    capacity: CapacityShape = CapacityShape()


class HostListShape(BaseModel):
    hosts: list[HostShape]


def key_shape(row: KeyRow) -> KeyShape:
    return KeyShape(
        id=row.id,
        name=row.name,
        project=row.project,
        prefix=row.prefix,
        created_at=to_time(row.created_ms),
        last_used_at=to_time(row.used_ms),
        revoked_at=to_time(row.revoked_ms),
    )


def host_shape(row: HostRow) -> HostShape:
    facts = {**row.facts}
    started_ms = facts.pop("started_ms", None)
    return HostShape(
        id=row.id,
        status=row.status,
        reason=row.reason,
        last_seen_at=to_time(row.seen_ms),
        installation=row.installation,
        started_at=to_time(started_ms),
        **facts,
    )


@router.get("/v1/keys", tags=["keys"], responses=failures())
async def list_keys(caller: CallerOf, services: ServicesOf) -> KeyListShape:
    """The project's keys, revoked ones too, without the keys themselves."""
    rows = await services.database.read(lambda c: keys.list_all(c, caller.project))
    return KeyListShape(keys=[key_shape(row) for row in rows])


@router.post("/v1/keys", status_code=201, tags=["keys"], responses=ADMIN)
async def create_key(caller: CallerOf, services: ServicesOf, body: CreateKeyShape) -> NewKeyShape:
    """A new key: the only time that it is shown. For another project: by an administrator."""
    project = body.project or caller.project
    if project != caller.project:
        caller.require_admin()
    key = keys.new_key()
    row = await services.database.run(lambda c: keys.add(c, project, body.name, key))
    return NewKeyShape(**key_shape(row).model_dump(), key=key)


@router.delete("/v1/keys/{key_id}", status_code=204, tags=["keys"], responses=LOOKS)
async def revoke_key(key_id: KeyId, caller: CallerOf, services: ServicesOf) -> Response:
    """It stops at once, and what it has open is closed. An administrator's reach every project."""
    await services.authentication.revoke(None if caller.is_admin else caller.project, key_id)
    return Response(status_code=204)


@router.get("/v1/hosts", tags=["hosts"], responses=ADMIN)
async def list_hosts(caller: CallerOf, services: ServicesOf) -> HostListShape:
    """The machines that run sandboxes."""
    caller.require_admin()
    rows = await services.database.read(hosts.list_all)
    return HostListShape(hosts=[host_shape(row) for row in rows])


@router.get("/v1/hosts/{host_id}", tags=["hosts"], responses=failures(403, 404))
async def get_host(host_id: str, caller: CallerOf, services: ServicesOf) -> HostShape:
    """One of them."""
    caller.require_admin()
    row = await services.database.read(lambda c: hosts.get(c, host_id))
    if row is None:
        raise NotFound(f"there is no host {host_id[:63]}", hint="GET /v1/hosts lists them")
    return host_shape(row)
