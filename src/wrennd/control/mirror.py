"""What a host says about sandboxes and templates, as columns of their rows, and back. Pure."""

from collections.abc import Iterable
from typing import Any

from wrennd.control.states import RowState
from wrennd.control.store.rows import Expiry, SandboxRow, TemplateRow
from wrennd.control.store.templates import NO_PROJECT
from wrennd.gen.hostagent import hostagent_pb as pb

IMAGE = "image"


def host_state(sandbox: pb.Sandbox) -> RowState | None:
    """None: the host names a state that no record has, so it has no valid one."""
    try:
        return RowState(sandbox.state)
    except ValueError:
        return None


def facts(sandbox: pb.Sandbox) -> dict[str, Any]:
    """The columns that are the host's to say, whatever the state."""
    found: dict[str, Any] = {
        "host_revision": sandbox.revision,
        "tier": sandbox.tier,
        "vcpus": sandbox.vcpus,
        "mem_mib": sandbox.mem_mib,
        "address": sandbox.address,
        "generation": sandbox.generation,
        "disk_bytes": sandbox.disk_bytes,
        "error": sandbox.error,
        "cause": sandbox.cause,
        "is_kept": sandbox.is_kept,
        "source": sandbox.source,
        "expires_ms": sandbox.expires_unix_ms or None,
        "versions": versions(sandbox),
    }
    if sandbox.active_unix_ms:
        found["active_ms"] = sandbox.active_unix_ms
    if sandbox.expiry is not None:
        found["expiry"] = expiry_of(sandbox.expiry).to_json()
    return found


def versions(sandbox: pb.Sandbox) -> dict[str, str]:
    found = {"kernel_version": sandbox.kernel_version, "vmm_version": sandbox.vmm_version}
    return {name: version for name, version in found.items() if version}


def expiry_of(expiry: pb.Expiry) -> Expiry:
    return Expiry(
        after="deadline" if expiry.after is pb.Expiry.After.DEADLINE else "idle",
        seconds=expiry.seconds,
        action="destroy" if expiry.action is pb.Expiry.Action.DESTROY else "pause",
    )


def to_expiry(expiry: Expiry) -> pb.Expiry:
    after, action = pb.Expiry.After, pb.Expiry.Action
    return pb.Expiry(
        after=after.DEADLINE if expiry.after == "deadline" else after.IDLE,
        seconds=expiry.seconds,
        action=action.DESTROY if expiry.action == "destroy" else action.PAUSE,
    )


def adopted(sandbox: pb.Sandbox, *, project: str, host: str, now_ms: int) -> SandboxRow:
    """The row of a sandbox that was made without the server."""
    state = host_state(sandbox)
    assert state is not None, "what has no valid record is not adopted"
    columns = {
        "id": sandbox.id,
        "project": project,
        "host": host,
        "state": state,
        "revision": 1,
        "template": sandbox.template,
        "disk_mib": 0,
        "expiry": Expiry().to_json(),
        "labels": {},
        "created_ms": sandbox.created_unix_ms or now_ms,
        "updated_ms": now_ms,
        "started_ms": None,
        "active_ms": None,
    }
    return SandboxRow.of({**columns, **facts(sandbox)})


def changes(row: SandboxRow, found: dict[str, Any]) -> dict[str, Any]:
    """Those of `found` that differ from the row."""
    now = row.to_columns()
    return {name: value for name, value in found.items() if now[name] != value}


def template_of(template: pb.Template, *, project: str, host: str) -> TemplateRow:
    """The row of a template; images belong to no project."""
    return TemplateRow(
        project=NO_PROJECT if template.kind == IMAGE else project,
        name=template.name,
        host=host,
        host_name=template.name,
        kind=template.kind,
        vcpus=template.vcpus,
        mem_mib=template.mem_mib,
        size_bytes=template.size_bytes,
        created_ms=template.created_unix_ms,
        tier=template.tier,
        sandbox=template.sandbox_id,
        error=template.error,
    )


def phases(found: Iterable[pb.Phase]) -> list[dict[str, Any]]:
    return [{"name": phase.name, "ms": round(phase.ms, 1)} for phase in found]
