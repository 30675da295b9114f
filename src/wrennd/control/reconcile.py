"""What to do about a difference between the database and a host: a pure function over both.

`decide(rows, report)` says it in actions; `reconciler.py` asks the host and does them. Rules:

- Rows that an operation of ours works on are left to it.
- A host that was not heard has no report, so nothing is decided: it changes only its own status.
- A host's word on a sandbox counts if it is not older than what the row has seen (revisions).
- A paused sandbox is expected to be absent from those that run: only one that the host does not
  know at all is missing.
- Stuck passing states are settled by what the host says; STARTING that the host has never seen was
  not made, once `grace_ms` have passed in which the request may still arrive.
- What the host has and the database doesn't is adopted by its record. Without a valid one it is
  removed when it was so for `grace_ms`. A sandbox that dies with its command (`wrenn run`) is left
  alone.
- A sandbox that was to be destroyed is destroyed again as long as the host has it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wrennd.control import mirror
from wrennd.control.states import RowState
from wrennd.control.store.rows import SandboxRow
from wrennd.gen.hostagent import hostagent_pb as pb

GONE = "its host does not know it any more"
NEVER_MADE = "the host was never asked to make it, or did not begin"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a host said, and what is known around it.

    gone: what it ended by itself, with the cause. stopped: which of its sandboxes are stopped in
    the database. since: when each unknown id was seen first. Times in milliseconds since 1970.
    """

    sandboxes: Mapping[str, pb.Sandbox]
    now_ms: int
    grace_ms: int
    gone: Mapping[str, str] = field(default_factory=dict)
    busy: Collection[str] = ()
    stopped: Collection[str] = ()
    since: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Move:
    """Set a row to what its host says, or to what follows from the host's silence."""

    row: SandboxRow
    to: RowState
    changes: dict[str, Any]
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Refresh:
    """Set what changes by itself; the state stays."""

    row: SandboxRow
    changes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Adopt:
    """Make a row for a sandbox that was made without the server."""

    sandbox: pb.Sandbox


@dataclass(frozen=True, kw_only=True)
class Destroy:
    """Ask the host to destroy what was to be destroyed. row None: it has none."""

    sandbox_id: str
    row: SandboxRow | None = None


Action = Move | Refresh | Adopt | Destroy


def decide(rows: Iterable[SandboxRow], report: Report) -> list[Action]:
    """One action at most for each sandbox."""
    known = {row.id: row for row in rows}
    found = [_known(row, report) for row in known.values() if row.id not in report.busy]
    found += [
        _unknown(sandbox, report)
        for sandbox in report.sandboxes.values()
        if sandbox.id not in known and sandbox.id not in report.busy
    ]
    return [action for action in found if action is not None]


def _known(row: SandboxRow, report: Report) -> Action | None:
    sandbox = report.sandboxes.get(row.id)
    if sandbox is None:
        return _absent(row, report)
    if row.state is RowState.DESTROYING:
        return Destroy(sandbox_id=row.id, row=row)
    state = mirror.host_state(sandbox)
    if state is None or sandbox.revision < row.host_revision:
        return None
    changes = mirror.changes(row, mirror.facts(sandbox))
    if state is not row.state:
        return Move(row=row, to=state, changes=changes, reason=sandbox.cause)
    return Refresh(row=row, changes=changes) if changes else None


def _absent(row: SandboxRow, report: Report) -> Action | None:
    gone = {"address": "", "expires_ms": None}
    if row.state is RowState.DESTROYING:
        return Move(row=row, to=RowState.STOPPED, changes=gone)
    cause = report.gone.get(row.id)
    if cause is not None:
        return Move(row=row, to=RowState.STOPPED, changes={**gone, "cause": cause}, reason=cause)
    if row.state is RowState.MISSING:
        return None
    if row.state is RowState.STARTING and row.host_revision == 0:
        if report.now_ms - row.updated_ms < report.grace_ms:
            return None
        changes = {**gone, "error": NEVER_MADE}
        return Move(row=row, to=RowState.STOPPED, changes=changes, reason=NEVER_MADE)
    return Move(row=row, to=RowState.MISSING, changes={**gone, "error": GONE}, reason=GONE)


def _unknown(sandbox: pb.Sandbox, report: Report) -> Action | None:
    state = mirror.host_state(sandbox)
    is_old = report.now_ms - report.since.get(sandbox.id, report.now_ms) >= report.grace_ms
    if sandbox.id in report.stopped or state is None:
        return Destroy(sandbox_id=sandbox.id) if is_old else None
    if not sandbox.is_kept or state in (RowState.STARTING, RowState.DESTROYING):
        return None
    return Adopt(sandbox=sandbox)
