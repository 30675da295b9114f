"""Rows of sandboxes. Every change of state is a compare-and-set on the row's revision."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from wrennd.control.states import RowState, check_move, require
from wrennd.control.store import schema
from wrennd.control.store.rows import SandboxRow, now_ms
from wrennd.core.errors import AlreadyExists, NotFound, Unavailable

TABLE = schema.sandboxes
ATTEMPTS = 5  # two that change one row at the same moment: each loses at most a few times


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which rows of a project to list. states empty: all but stopped ones.

    after: created_ms and id of the last row of the page before, newest first.
    """

    project: str
    states: frozenset[RowState] = frozenset()
    template: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    limit: int = 100
    after: tuple[int, str] | None = None


def get(connection: Connection, sandbox_id: str) -> SandboxRow | None:
    found = connection.execute(select(TABLE).where(TABLE.c.id == sandbox_id)).mappings().first()
    return SandboxRow.of(found) if found else None


def get_owned(connection: Connection, project: str, sandbox_id: str) -> SandboxRow:
    """Errors: NotFound, also for another project's."""
    row = get(connection, sandbox_id)
    if row is None or row.project != project:
        raise NotFound(
            f"there is no sandbox {sandbox_id}", hint="wrenn ls, or GET /v1/sandboxes, lists yours"
        )
    return row


def add(connection: Connection, row: SandboxRow) -> None:
    """Errors: AlreadyExists."""
    try:
        connection.execute(insert(TABLE).values(**row.to_columns()))
    except IntegrityError as error:
        raise AlreadyExists(f"there is a sandbox {row.id} already") from error


def move(
    connection: Connection, row: SandboxRow, to: RowState, changes: Mapping[str, Any] | None = None
) -> SandboxRow | None:
    """Change a row's state if it is still as in `row`; None when somebody was faster."""
    check_move(row.state, to)
    return mirror(connection, row, to, changes)


def mirror(
    connection: Connection, row: SandboxRow, to: RowState, changes: Mapping[str, Any] | None = None
) -> SandboxRow | None:
    """As `move`, to what a host says that it is: facts keep to no table."""
    values = {**(changes or {}), "state": to, "revision": row.revision + 1, "updated_ms": now_ms()}
    return _update(connection, row, values)


def refresh(connection: Connection, row: SandboxRow, changes: Mapping[str, Any]) -> None:
    """Set what changes by itself (activity, disk): no change of state, so the same revision."""
    _update(connection, row, dict(changes))


def _update(connection: Connection, row: SandboxRow, values: dict[str, Any]) -> SandboxRow | None:
    changed = connection.execute(
        update(TABLE)
        .where(TABLE.c.id == row.id, TABLE.c.revision == row.revision)
        .values(**values)
        .returning(TABLE)
    ).mappings()
    found = changed.first()
    return SandboxRow.of(found) if found else None


def begin(
    connection: Connection,
    project: str,
    sandbox_id: str,
    wanted: Iterable[RowState],
    to: RowState,
) -> tuple[SandboxRow, SandboxRow]:
    """Claim a sandbox for an operation: it was in a wanted state, and is now in `to`.

    Returns the row as it was and as it is. Errors: NotFound, WrongState.
    """
    for _ in range(ATTEMPTS):
        row = get_owned(connection, project, sandbox_id)
        require(row.id, row.state, *wanted, reason=row.error)
        moved = move(connection, row, to, {"cause": "", "error": ""})
        if moved is not None:
            return row, moved
    raise Unavailable(f"sandbox {sandbox_id} changes too often", hint="try again", is_unsent=True)


def list_page(connection: Connection, wanted: Filter) -> list[SandboxRow]:
    """Newest first. Labels are compared here: JSON queries are not portable."""
    query = select(TABLE).where(TABLE.c.project == wanted.project)
    if wanted.states:
        query = query.where(TABLE.c.state.in_(sorted(wanted.states)))
    else:
        query = query.where(TABLE.c.state != RowState.STOPPED)
    if wanted.template:
        query = query.where(TABLE.c.template == wanted.template)
    query = query.order_by(TABLE.c.created_ms.desc(), TABLE.c.id.desc())
    if not wanted.labels:
        return _page(connection, query, wanted)
    found: list[SandboxRow] = []
    after = wanted.after
    while len(found) < wanted.limit:
        page = _page(connection, query, replace(wanted, after=after, limit=1000))
        found += [row for row in page if wanted.labels.items() <= row.labels.items()]
        if len(page) < 1000:
            break
        after = (page[-1].created_ms, page[-1].id)
    return found[: wanted.limit]


def _page(connection: Connection, query: Any, wanted: Filter) -> list[SandboxRow]:
    if wanted.after is not None:
        created, last = wanted.after
        query = query.where(
            or_(
                TABLE.c.created_ms < created,
                and_(TABLE.c.created_ms == created, TABLE.c.id < last),
            )
        )
    rows = connection.execute(query.limit(wanted.limit)).mappings()
    return [SandboxRow.of(row) for row in rows]


def list_host(connection: Connection, host: str) -> list[SandboxRow]:
    """All rows that a host should know about."""
    query = select(TABLE).where(TABLE.c.host == host, TABLE.c.state != RowState.STOPPED)
    return [SandboxRow.of(row) for row in connection.execute(query).mappings()]


def stopped_of(connection: Connection, ids: Iterable[str]) -> frozenset[str]:
    """Which of these are stopped here."""
    query = select(TABLE.c.id).where(TABLE.c.id.in_(list(ids)), TABLE.c.state == RowState.STOPPED)
    return frozenset(connection.execute(query).scalars())
