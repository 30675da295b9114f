"""The states of a sandbox's row: those of core/states.py, and two that only the server knows.

STOPPED is the end: destroyed, or never made. MISSING: its host has no such sandbox any more; should
it turn up again, its row follows it. Who changes a row's state goes through `check_move` and a
compare-and-set on its revision (`store/sandboxes.py`).
"""

from enum import StrEnum

from wrennd.core.errors import WrongState
from wrennd.core.states import MOVES as HOST_MOVES
from wrennd.core.states import State


class RowState(StrEnum):
    """What a sandbox is, as the server last knew."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    SNAPSHOTTING = "snapshotting"
    PAUSED = "paused"
    RESUMING = "resuming"
    ERROR = "error"
    DESTROYING = "destroying"
    STOPPED = "stopped"
    MISSING = "missing"

    @property
    def is_passing(self) -> bool:
        """Whether somebody is at work on it, or died while he was."""
        return self in PASSING

    @property
    def is_coming(self) -> bool:
        """Whether it will run soon, if nothing goes wrong."""
        return self in (RowState.STARTING, RowState.RESUMING)


PASSING = frozenset(
    {
        RowState.STARTING,
        RowState.PAUSING,
        RowState.SNAPSHOTTING,
        RowState.RESUMING,
        RowState.DESTROYING,
    }
)

# What operations of ours may do. A paused one is frozen without being woken, so there is a way
# from PAUSED to SNAPSHOTTING and back, which a host's record does not go.
_OURS: dict[RowState, frozenset[RowState]] = {
    RowState.STARTING: frozenset({RowState.STOPPED}),
    RowState.PAUSED: frozenset({RowState.SNAPSHOTTING}),
    RowState.SNAPSHOTTING: frozenset({RowState.PAUSED}),
    RowState.DESTROYING: frozenset({RowState.STOPPED}),
    RowState.MISSING: frozenset({RowState.DESTROYING}),
    RowState.STOPPED: frozenset(),
}


_HOSTS = frozenset(state.value for state in State)


def _moves() -> dict[RowState, frozenset[RowState]]:
    """Everything may be found missing, but what is at its end."""
    table: dict[RowState, frozenset[RowState]] = {}
    for state in RowState:
        theirs = HOST_MOVES[State(state.value)] if state.value in _HOSTS else frozenset()
        table[state] = frozenset(RowState(to.value) for to in theirs) | _OURS.get(
            state, frozenset()
        )
    return table


MOVES = _moves()

_HINTS = {
    RowState.STARTING: "it is being made; look again in a moment",
    RowState.RUNNING: "pause it first",
    RowState.PAUSING: "it is being paused; look again in a moment",
    RowState.SNAPSHOTTING: "a snapshot of it is being taken; look again in a moment",
    RowState.PAUSED: "resume it first",
    RowState.RESUMING: "it is being resumed; look again in a moment",
    RowState.ERROR: "resume it with cold, which boots it from its disk, or destroy it",
    RowState.DESTROYING: "it is being destroyed",
    RowState.STOPPED: "make another one",
    RowState.MISSING: "destroy it; it can't be brought back",
}
_IN_WORDS = {RowState.ERROR: "in error", RowState.STARTING: "still starting"}


def check_move(now: RowState, to: RowState) -> None:
    """Errors: AssertionError for a move that the table does not have: a bug of ours."""
    if to not in MOVES[now]:
        raise AssertionError(f"a sandbox that is {now} can't become {to}")


def require(sandbox_id: str, now: RowState, *wanted: RowState, reason: str = "") -> None:
    """Errors: WrongState, which says what it is, when a sandbox is in no wanted state."""
    if now in wanted:
        return
    because = f": {reason}" if reason else ""
    raise WrongState(
        f"sandbox {sandbox_id} is {_IN_WORDS.get(now, now)}{because}", hint=_HINTS[now]
    )
