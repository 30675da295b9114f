"""What sandboxes are made from, as the host listed it last. Images belong to every project."""

import secrets
from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert, or_, select, update

from wrennd.control.store import schema
from wrennd.control.store.rows import TemplateRow
from wrennd.core.errors import NotFound

TABLE = schema.templates
NO_PROJECT = ""
_MAX_HOST_NAME = 63  # core/ids.py, NAME


def find(connection: Connection, project: str, name: str) -> TemplateRow | None:
    """The project's own template of this name, else the image."""
    query = (
        select(TABLE)
        .where(TABLE.c.name == name, TABLE.c.project.in_((project, NO_PROJECT)))
        .order_by(TABLE.c.project.desc())
    )
    found = connection.execute(query).mappings().first()
    return TemplateRow(**found) if found else None


def get(connection: Connection, project: str, name: str) -> TemplateRow:
    """Errors: NotFound."""
    row = find(connection, project, name)
    if row is None:
        raise NotFound(
            f"there is no template {name}",
            hint="wrenn template ls, or GET /v1/templates, lists them",
        )
    return row


def list_all(connection: Connection, project: str) -> list[TemplateRow]:
    query = (
        select(TABLE)
        .where(or_(TABLE.c.project == project, TABLE.c.project == NO_PROJECT))
        .order_by(TABLE.c.kind, TABLE.c.name)
    )
    return [TemplateRow(**row) for row in connection.execute(query).mappings()]


def list_host(connection: Connection, host: str) -> list[TemplateRow]:
    query = select(TABLE).where(TABLE.c.host == host)
    return [TemplateRow(**row) for row in connection.execute(query).mappings()]


def free_host_name(connection: Connection, name: str) -> str:
    """A name for the host: the same, unless it has a template of another project by that name."""
    taken = select(TABLE.c.name).where(TABLE.c.host_name == name)
    if connection.execute(taken).first() is None:
        return name
    suffix = f".{secrets.token_hex(4)}"
    return name[: _MAX_HOST_NAME - len(suffix)] + suffix


def put(connection: Connection, row: TemplateRow) -> None:
    is_it = (TABLE.c.project == row.project) & (TABLE.c.name == row.name)
    if connection.execute(update(TABLE).where(is_it).values(**vars(row))).rowcount == 0:
        connection.execute(insert(TABLE).values(**vars(row)))


def remove(connection: Connection, project: str, name: str) -> None:
    connection.execute(delete(TABLE).where(TABLE.c.project == project, TABLE.c.name == name))


def sync(connection: Connection, host: str, listed: Iterable[TemplateRow]) -> None:
    """Make the rows what the host lists: known ones keep project and name, the rest come and go."""
    known = {row.host_name: row for row in list_host(connection, host)}
    for row in listed:
        before = known.pop(row.host_name, None)
        if before is None:
            put(connection, row)
            continue
        facts = {**vars(row), "project": before.project, "name": before.name}
        if before.kind != row.kind:
            remove(connection, before.project, before.name)
            put(connection, row)
        elif facts != vars(before):
            put(connection, TemplateRow(**facts))
    for gone in known.values():
        remove(connection, gone.project, gone.name)
