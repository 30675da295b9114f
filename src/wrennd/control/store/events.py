"""What happened to sandboxes: of each the newest KEPT events."""

from typing import Any

from sqlalchemy import Connection, delete, insert, select

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
