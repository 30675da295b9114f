"""Which creation an Idempotency-Key stands for: a repeat gets the first one's result."""

import hashlib

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from wrennd.control.store import schema
from wrennd.control.store.rows import now_ms
from wrennd.core.errors import AlreadyExists

TABLE = schema.idempotency
KEPT_MS = 24 * 3600 * 1000


def claim(connection: Connection, project: str, key: str, body: bytes, result: str) -> str:
    """The id or name that the key stands for: `result` if it is new.

    body: what was asked for. Errors: AlreadyExists when something else was, before.
    """
    digest = hashlib.sha256(body).hexdigest()
    connection.execute(delete(TABLE).where(TABLE.c.created_ms < now_ms() - KEPT_MS))
    values = {
        "project": project,
        "key": key,
        "digest": digest,
        "result": result,
        "created_ms": now_ms(),
    }
    try:
        with connection.begin_nested():
            connection.execute(insert(TABLE).values(**values))
    except IntegrityError:
        query = select(TABLE.c.digest, TABLE.c.result).where(
            TABLE.c.project == project, TABLE.c.key == key
        )
        before = connection.execute(query).one()
        if before.digest != digest:
            raise AlreadyExists(
                f"the idempotency key {key!r} was used for another request",
                hint="use a new key for each thing that you make",
            ) from None
        return str(before.result)
    return result


def release(connection: Connection, project: str, result: str) -> None:
    """What was asked for was not made: the key is free again."""
    connection.execute(delete(TABLE).where(TABLE.c.project == project, TABLE.c.result == result))
