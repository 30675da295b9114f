"""What happened to sandboxes: of each the newest KEPT events."""

from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from wrennd.control.states import RowState
from wrennd.control.store import schema
from wrennd.control.store.rows import EventRow, now_ms

TABLE = schema.events
KEPT = 200
KEPT_OTHERS = 1000  # of a project, about no sandbox


def add(
    connection: Connection, project: str, sandbox: str, kind: str, data: dict[str, Any]
) -> EventRow:
    """Add one and drop what is too old."""
    at = now_ms()
    values = {"project": project, "sandbox": sandbox, "at_ms": at, "kind": kind, "data": data}
    result = connection.execute(insert(TABLE).values(**values).returning(TABLE.c.id))
    row = EventRow(id=result.scalar_one(), **values)  # type: ignore[arg-type]  # columns, as typed
    of_it = (TABLE.c.sandbox == sandbox) & (TABLE.c.project == project)
    last_kept = (
        select(TABLE.c.id)
        .where(of_it)
        .order_by(TABLE.c.id.desc())
        .offset((KEPT if sandbox else KEPT_OTHERS) - 1)
        .limit(1)
        .scalar_subquery()
    )
    connection.execute(delete(TABLE).where(of_it, TABLE.c.id < last_kept))
    return row


def list_newest(connection: Connection, sandbox: str, limit: int) -> list[EventRow]:
    query = select(TABLE).where(TABLE.c.sandbox == sandbox).order_by(TABLE.c.id.desc())
    return [EventRow(**row) for row in connection.execute(query.limit(limit)).mappings()]


def drop_ended(connection: Connection, before_ms: int, *, is_dry_run: bool) -> int:
    """Drop those of sandboxes that had ended by then, or only count them; how many they are."""
    boxes = schema.sandboxes.c
    ended = select(boxes.id).where(boxes.state == RowState.STOPPED, boxes.updated_ms < before_ms)
    old = TABLE.c.sandbox.in_(ended)
    count = connection.execute(select(func.count()).select_from(TABLE).where(old)).scalar_one()
    if count and not is_dry_run:
        connection.execute(delete(TABLE).where(old))
    return int(count)
