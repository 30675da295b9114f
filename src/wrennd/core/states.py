"""The states of a sandbox, which follow which, and what to tell a user whom one stands in the way.

STARTING ─> RUNNING ─> PAUSING ─> PAUSED ─> RESUMING ─> RUNNING
A snapshot of one that goes on is RUNNING ─> SNAPSHOTTING ─> RUNNING. From all that have a VM, but
STARTING, there is a way to ERROR (its VMM is gone, its disk is kept), and from there back by
RESUMING. A pause that fails leads back to RUNNING, a resume that fails to where it came from. From
everywhere DESTROYING leads to the end.
"""

from enum import StrEnum

from wrennd.core.errors import WrongState


class State(StrEnum):
    """What a sandbox is or is becoming, as its record says."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    SNAPSHOTTING = "snapshotting"
    PAUSED = "paused"
    RESUMING = "resuming"
    ERROR = "error"
    DESTROYING = "destroying"

    @property
    def is_passing(self) -> bool:
        """Whether somebody is at work on it, or died while he was."""
        return self not in (State.RUNNING, State.PAUSED, State.ERROR)


MOVES: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.RUNNING, State.DESTROYING}),
    State.RUNNING: frozenset({State.PAUSING, State.SNAPSHOTTING, State.ERROR, State.DESTROYING}),
    State.PAUSING: frozenset({State.RUNNING, State.PAUSED, State.ERROR, State.DESTROYING}),
    State.SNAPSHOTTING: frozenset({State.RUNNING, State.ERROR, State.DESTROYING}),
    State.PAUSED: frozenset({State.RESUMING, State.DESTROYING}),
    State.RESUMING: frozenset({State.RUNNING, State.PAUSED, State.ERROR, State.DESTROYING}),
    State.ERROR: frozenset({State.RESUMING, State.DESTROYING}),
    State.DESTROYING: frozenset({State.DESTROYING}),
}

HINTS: dict[State, str] = {
    State.STARTING: "another command is making it; try again when it is done",
    State.RUNNING: "wrenn exec {id} -- CMD runs a command in it; wrenn pause {id} pauses it",
    State.PAUSING: "another command is pausing it; try again when it is done",
    State.SNAPSHOTTING: "another command is taking a snapshot of it; try again when it is done",
    State.PAUSED: "wrenn resume {id} lets it go on",
    State.RESUMING: "another command is resuming it; try again when it is done",
    State.ERROR: "wrenn resume --cold {id} boots it from its disk; wrenn kill {id} removes it",
    State.DESTROYING: "wrenn kill {id} finishes that",
}


def check_move(now: State, to: State) -> None:
    """Errors: AssertionError for a move that the table does not have: a bug of ours."""
    if to not in MOVES[now]:
        raise AssertionError(f"a sandbox that is {now} can't become {to}")


def require(sandbox_id: str, now: State, *wanted: State, reason: str = "") -> None:
    """Errors: WrongState, with what can be done instead, when a sandbox is in no wanted state.

    reason: why it is in the state in which it is, where that is known.
    """
    if now not in wanted:
        because = f": {reason}" if reason else ""
        raise WrongState(
            f"sandbox {sandbox_id} is {_IN_WORDS.get(now, now)}{because}",
            hint=HINTS[now].format(id=sandbox_id),
        )


_IN_WORDS = {State.ERROR: "in error", State.STARTING: "still starting"}
