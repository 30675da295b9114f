"""Values of ours as messages of the agent's RPC, and back. Pure."""

import stat
from collections.abc import Iterable
from datetime import datetime

from wrennd.core.errors import InvalidInput
from wrennd.core.expiry import NEVER, Action, After
from wrennd.core.expiry import Expiry as Wanted
from wrennd.core.model import SandboxRequest
from wrennd.core.sandboxes import Forked, ListedTemplate
from wrennd.core.space import Pruning, Space
from wrennd.core.states import State
from wrennd.core.timings import Timings
from wrennd.gen.hostagent.hostagent_pb import (
    Capacity,
    CreateSandboxRequest,
    ErrorDetail,
    Expiry,
    FileEntry,
    ForkedChild,
    GetSandboxMetricsResponse,
    GetSpaceResponse,
    Gone,
    Holding,
    Phase,
    PrunedThing,
    PruneResponse,
    Sandbox,
    Template,
)
from wrennd.host.agent.admission import Used
from wrennd.host.agent.catalogue import Seen, Unreadable
from wrennd.host.agent.departures import Departure
from wrennd.host.agent.measuring import Point
from wrennd.host.envd_files import Entry, Kind
from wrennd.host.record import Owner
from wrennd.storage.images import Image

MAX_INT64 = (1 << 63) - 1

_AFTER = {After.IDLE: Expiry.After.IDLE, After.DEADLINE: Expiry.After.DEADLINE}
_ACTION = {Action.PAUSE: Expiry.Action.PAUSE, Action.DESTROY: Expiry.Action.DESTROY}


def sandbox(seen: Seen, *, active_ms: int, disk_bytes: int) -> Sandbox:
    """active_ms: of its last use; only looked at while it runs."""
    if isinstance(seen, Unreadable):
        return Sandbox(id=seen.id, state=State.ERROR, error=seen.why, is_kept=True)
    runs = seen.state is State.RUNNING
    due_ms = seen.expiry.moment_ms(set_ms=seen.expiry_set_ms, active_ms=active_ms) if runs else None
    return Sandbox(
        id=seen.id,
        state=seen.state,
        template=seen.template,
        tier=seen.tier,
        vcpus=seen.vcpus,
        mem_mib=seen.mem_mib,
        created_unix_ms=unix_ms(seen.created),
        active_unix_ms=active_ms if runs else 0,
        address=seen.address if runs else "",
        generation=seen.generation,
        revision=seen.revision,
        expiry=expiry_of(seen.expiry),
        expires_unix_ms=due_ms or 0,
        error=seen.error if seen.state is State.ERROR else "",
        is_kept=seen.owner is Owner.INSTALLATION,
        kernel_version=seen.guest_kernel,
        vmm_version=str(seen.vmm_facts.get("version", "")),
        cause=seen.cause,
        disk_bytes=disk_bytes,
        source=seen.source,
    )


def unix_ms(created: str) -> int:
    """Of what a record or manifest says; 0 when it says nothing."""
    return round(datetime.fromisoformat(created).timestamp() * 1000) if created else 0


def expiry_of(found: Wanted) -> Expiry:
    return Expiry(after=_AFTER[found.after], seconds=found.seconds, action=_ACTION[found.action])


def to_expiry(asked: Expiry | None) -> Wanted:
    """None: never. What is not said is idle, and pause. Errors: InvalidInput."""
    if asked is None:
        return NEVER
    after = {Expiry.After.UNSPECIFIED: After.IDLE} | {there: ours for ours, there in _AFTER.items()}
    action = {Expiry.Action.UNSPECIFIED: Action.PAUSE}
    action |= {there: ours for ours, there in _ACTION.items()}
    if asked.after not in after or asked.action not in action:
        raise InvalidInput("an expiry is after idle or deadline, and pauses or destroys")
    return Wanted(after=after[asked.after], seconds=asked.seconds, action=action[asked.action])


def forked(done: Forked, found: Sandbox | None) -> ForkedChild:
    """found: the child, where there is one."""
    error = None if done.error is None else ErrorDetail(**done.error.to_wire())
    return ForkedChild(
        sandbox_id=done.id,
        sandbox=found,
        error=error,
        phases=phases(done.timings),
        unique=list(done.unique),
        shared=list(done.shared),
    )


def phases(timings: Timings) -> list[Phase]:
    return [Phase(name=name, ms=ms) for name, ms in timings.phases_ms.items()]


def capacity(used: Used) -> Capacity:
    return Capacity(
        mem_mib=used.mem_mib,
        mem_mib_reserved=used.mem_mib_reserved,
        disk_bytes=used.disk_bytes,
        disk_bytes_free=used.disk_bytes_free,
        disk_bytes_reserved=used.disk_bytes_reserved,
        cpus=used.cpus,
        vcpus_given=used.vcpus_given,
    )


def entry(found: Entry) -> FileEntry:
    """What a guest said of a file. Its numbers are as wide as ours: the caller checks them."""
    is_symlink = found.symlink_target is not None
    kind = {Kind.FILE: "file", Kind.DIRECTORY: "directory"}.get(found.kind, "unknown")
    return FileEntry(
        name=found.name,
        path=found.path,
        type="symlink" if is_symlink else kind,
        size=min(max(found.size, 0), MAX_INT64),
        mode=found.mode & 0o7777,
        permissions=_permissions(found, is_symlink=is_symlink),
        owner=found.owner,
        group=found.group,
        modified_unix=round(found.modified.timestamp()),
        symlink_target=found.symlink_target or "",
    )


def _permissions(found: Entry, *, is_symlink: bool) -> str:
    """As ls -l shows it."""
    kinds = {Kind.FILE: stat.S_IFREG, Kind.DIRECTORY: stat.S_IFDIR}
    kind = stat.S_IFLNK if is_symlink else kinds.get(found.kind, 0)
    return stat.filemode(kind | found.mode & 0o7777)


def entries(found: Iterable[Entry]) -> list[FileEntry]:
    return [entry(one) for one in found]


def template(found: ListedTemplate) -> Template:
    return Template(
        name=found.name,
        kind="snapshot",
        vcpus=found.vcpus,
        mem_mib=found.mem_mib,
        size_bytes=found.disk_bytes,
        created_unix_ms=unix_ms(found.created),
        tier=found.tier,
        sandbox_id=found.sandbox,
        error=found.error,
    )


def image(found: Image) -> Template:
    return Template(
        name=found.name,
        kind="image",
        size_bytes=found.used_bytes,
        created_unix_ms=unix_ms(found.created),
    )


def gone(found: Departure) -> Gone:
    return Gone(id=found.id, cause=found.cause, unix_ms=found.unix_ms)


def point(found: Point) -> GetSandboxMetricsResponse.Point:
    return GetSandboxMetricsResponse.Point(
        unix_ms=found.unix_ms,
        cpu_percent=found.cpu_percent,
        mem_bytes=found.mem_bytes,
        disk_bytes=found.disk_bytes,
    )


def space(found: Space) -> GetSpaceResponse:
    return GetSpaceResponse(
        holdings=[Holding(**vars(each)) for each in found.holdings], total_bytes=found.total_bytes
    )


def pruning(done: Pruning) -> PruneResponse:
    return PruneResponse(
        items=[PrunedThing(**vars(each)) for each in done.items],
        freed_bytes=done.freed_bytes,
        notes=list(done.notes),
    )


def to_request(request: CreateSandboxRequest) -> SandboxRequest:
    """Errors: InvalidInput."""
    return SandboxRequest(
        id=request.sandbox_id,
        template=request.template or "base",
        vcpus=request.vcpus or None,
        mem_mib=request.mem_mib or None,
        disk_mib=request.disk_mib or None,
        dns=tuple(request.dns),
        env=dict(request.env) or None,
        expiry=to_expiry(request.expiry),
        is_cold=request.cold,
    )
