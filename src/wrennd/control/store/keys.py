"""Projects and their API keys. A key itself is never stored: only its SHA-256, which is enough for
160 random bits.
"""

import hashlib
import re
import secrets

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from wrennd.control.store import schema
from wrennd.control.store.rows import KeyRow, now_ms
from wrennd.core.errors import NotFound
from wrennd.core.ids import new_sandbox_id

DEFAULT_PROJECT = "default"
KEY = re.compile(r"e2b_[0-9a-f]{40}")
SHOWN = 8  # of a key, so that its owner knows it again: "e2b_" and four digits
TABLE = schema.keys
_COLUMNS = tuple(column for column in TABLE.c if column.name != "digest")


def new_key() -> str:
    """`e2b_` and 40 hexadecimal digits: the form that published clients check."""
    return f"e2b_{secrets.token_hex(20)}"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def ensure_project(connection: Connection, project: str) -> None:
    known = schema.projects.c.id == project
    if connection.execute(select(schema.projects.c.id).where(known)).first() is None:
        values = {"id": project, "created_ms": now_ms()}
        connection.execute(insert(schema.projects).values(**values))


def add(connection: Connection, project: str, name: str, key: str) -> KeyRow:
    """Register a key, in a project that is made if it is new. A known one is left as it is."""
    ensure_project(connection, project)
    row = KeyRow(
        id=new_sandbox_id(),
        project=project,
        name=name,
        prefix=key[:SHOWN],
        created_ms=now_ms(),
        used_ms=None,
        revoked_ms=None,
    )
    try:
        with connection.begin_nested():
            connection.execute(insert(TABLE).values(**vars(row), digest=digest(key)))
    except IntegrityError:
        known = connection.execute(select(*_COLUMNS).where(TABLE.c.digest == digest(key)))
        return KeyRow(**known.mappings().one())
    return row


def find(connection: Connection, key: str) -> KeyRow | None:
    """The key's row if it counts: known and not revoked."""
    query = select(*_COLUMNS).where(TABLE.c.digest == digest(key), TABLE.c.revoked_ms.is_(None))
    found = connection.execute(query).mappings().first()
    return KeyRow(**found) if found else None


def is_known(connection: Connection, key: str) -> bool:
    """Whether it was ever ours, revoked or not."""
    query = select(TABLE.c.id).where(TABLE.c.digest == digest(key))
    return connection.execute(query).first() is not None


def list_all(connection: Connection, project: str) -> list[KeyRow]:
    query = select(*_COLUMNS).where(TABLE.c.project == project).order_by(TABLE.c.created_ms)
    return [KeyRow(**row) for row in connection.execute(query).mappings()]


def revoke(connection: Connection, project: str | None, key_id: str) -> None:
    """One of a project; None: of any. One that is revoked stays so. Errors: NotFound."""
    is_it = TABLE.c.id == key_id
    if project is not None:
        is_it &= TABLE.c.project == project
    revoked = func.coalesce(TABLE.c.revoked_ms, now_ms())
    if connection.execute(update(TABLE).where(is_it).values(revoked_ms=revoked)).rowcount == 0:
        raise NotFound(
            f"there is no key {key_id}", hint="wrenn key ls, or GET /v1/keys, lists yours"
        )


def mark_used(connection: Connection, key_id: str) -> None:
    connection.execute(update(TABLE).where(TABLE.c.id == key_id).values(used_ms=now_ms()))


def has_any(connection: Connection, project: str) -> bool:
    """Whether a project has a key that counts."""
    query = select(TABLE.c.id).where(TABLE.c.project == project, TABLE.c.revoked_ms.is_(None))
    return connection.execute(query.limit(1)).first() is not None
