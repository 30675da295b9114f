"""The machines that run sandboxes, and when they answered last."""

from typing import Any

from sqlalchemy import Connection, insert, select, update

from wrennd.control.store import schema
from wrennd.control.store.rows import HostRow, now_ms

TABLE = schema.hosts
LOCAL = "local"  # the one that `wrenn up` starts


def ensure(connection: Connection, host: str) -> HostRow:
    found = get(connection, host)
    if found is not None:
        return found
    row = HostRow(
        id=host,
        status="unreachable",
        reason="not asked yet",
        installation="",
        seen_ms=None,
        facts={},
    )
    connection.execute(insert(TABLE).values(**vars(row)))
    return row


def get(connection: Connection, host: str) -> HostRow | None:
    found = connection.execute(select(TABLE).where(TABLE.c.id == host)).mappings().first()
    return HostRow(**found) if found else None


def list_all(connection: Connection) -> list[HostRow]:
    query = select(TABLE).order_by(TABLE.c.id)
    return [HostRow(**row) for row in connection.execute(query).mappings()]


def mark_online(
    connection: Connection, host: str, installation: str, facts: dict[str, Any]
) -> None:
    _set(
        connection,
        host,
        status="online",
        reason="",
        installation=installation,
        seen_ms=now_ms(),
        facts=facts,
    )


def mark(connection: Connection, host: str, status: str, reason: str) -> None:
    _set(connection, host, status=status, reason=reason)


def _set(connection: Connection, host: str, **values: Any) -> None:
    connection.execute(update(TABLE).where(TABLE.c.id == host).values(**values))
