"""What ran in each minute of each project: what the older API's statistics are made of."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from wrennd.control.states import RowState
from wrennd.control.store import schema

TABLE = schema.usage
SANDBOXES = schema.sandboxes
MINUTE_MS = 60_000
KEPT_MINUTES = 92 * 24 * 60  # the longest span that may be asked for


@dataclass(frozen=True, kw_only=True)
class Minute:
    """minute: since 1970. running, vcpus, mem_mib: the most of any moment in it."""

    minute: int
    running: int
    vcpus: int
    mem_mib: int


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many sandboxes of a project are in a state, and what they have together."""

    project: str
    state: RowState
    count: int
    vcpus: int
    mem_mib: int


def count(connection: Connection) -> list[Count]:
    """Of all projects, what there is now."""
    query = select(
        SANDBOXES.c.project,
        SANDBOXES.c.state,
        func.count(),
        func.sum(SANDBOXES.c.vcpus),
        func.sum(SANDBOXES.c.mem_mib),
    ).group_by(SANDBOXES.c.project, SANDBOXES.c.state)
    return [
        Count(
            project=project,
            state=RowState(state),
            count=number,
            vcpus=int(vcpus),
            mem_mib=int(mem_mib),
        )
        for project, state, number, vcpus, mem_mib in connection.execute(query)
    ]


def note(connection: Connection, now_ms: int, counts: Iterable[Count]) -> None:
    """Write down what runs in this minute, and drop what is too old."""
    at = now_ms // MINUTE_MS
    for each in counts:
        if each.state is RowState.RUNNING:
            now = Minute(minute=at, running=each.count, vcpus=each.vcpus, mem_mib=each.mem_mib)
            _put(connection, each.project, now)
    connection.execute(delete(TABLE).where(TABLE.c.minute < at - KEPT_MINUTES))


def _put(connection: Connection, project: str, now: Minute) -> None:
    is_it = (TABLE.c.project == project) & (TABLE.c.minute == now.minute)
    before = connection.execute(select(TABLE).where(is_it)).mappings().first()
    if before is None:
        connection.execute(insert(TABLE).values(project=project, **vars(now)))
        return
    most = {name: max(before[name], value) for name, value in vars(now).items()}
    if any(before[name] != value for name, value in most.items()):
        connection.execute(update(TABLE).where(is_it).values(**most))


def list_since(connection: Connection, project: str, first: int, last: int) -> list[Minute]:
    """The minutes from `first` to `last`, both included, in which something ran."""
    query = (
        select(TABLE.c.minute, TABLE.c.running, TABLE.c.vcpus, TABLE.c.mem_mib)
        .where(TABLE.c.project == project, TABLE.c.minute.between(first, last))
        .order_by(TABLE.c.minute)
    )
    return [Minute(**row) for row in connection.execute(query).mappings()]
