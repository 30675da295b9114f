"""What ran in each minute of each project: what the older API's statistics are made of."""

from collections import Counter
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


def note(connection: Connection, now_ms: int) -> Counter[RowState]:
    """Write down what runs now; returns how many sandboxes are in each state, of all projects."""
    query = select(
        SANDBOXES.c.project,
        SANDBOXES.c.state,
        func.count(),
        func.sum(SANDBOXES.c.vcpus),
        func.sum(SANDBOXES.c.mem_mib),
    ).group_by(SANDBOXES.c.project, SANDBOXES.c.state)
    counts: Counter[RowState] = Counter()
    for project, state, count, vcpus, mem_mib in connection.execute(query):
        counts[RowState(state)] += count
        if state == RowState.RUNNING:
            now = Minute(
                minute=now_ms // MINUTE_MS, running=count, vcpus=int(vcpus), mem_mib=int(mem_mib)
            )
            _put(connection, project, now)
    oldest = now_ms // MINUTE_MS - KEPT_MINUTES
    connection.execute(delete(TABLE).where(TABLE.c.minute < oldest))
    return counts


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
