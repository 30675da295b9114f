"""Which state may follow which, and what a user is told."""

import pytest

from wrennd.core.errors import WrongState
from wrennd.core.states import HINTS, MOVES, State, check_move, require


def test_the_tables_know_every_state():
    assert set(MOVES) == set(HINTS) == set(State)


def test_every_state_can_be_reached_and_leads_to_the_end():
    reached = {State.STARTING}
    for _ in State:
        reached |= {after for state in reached for after in MOVES[state]}
    assert reached == set(State)
    assert all(State.DESTROYING in after for after in MOVES.values())


def test_a_move_that_is_not_in_the_table_is_a_bug():
    check_move(State.RUNNING, State.PAUSING)
    with pytest.raises(AssertionError, match="paused can't become running"):
        check_move(State.PAUSED, State.RUNNING)


def test_states_that_last_are_left_by_a_passing_one_only():
    lasting = [state for state in State if not state.is_passing]
    for state in lasting:
        assert all(after.is_passing or after is State.ERROR for after in MOVES[state])


def test_who_asks_for_the_wrong_thing_learns_what_he_can_do():
    require("a" * 20, State.RUNNING, State.RUNNING)
    with pytest.raises(WrongState, match="is paused") as caught:
        require("a" * 20, State.PAUSED, State.RUNNING)
    assert caught.value.hint == f"wrenn resume {'a' * 20} lets it go on"
    with pytest.raises(WrongState, match="is in error: its VMM ended"):
        require("a" * 20, State.ERROR, State.RUNNING, reason="its VMM ended")
