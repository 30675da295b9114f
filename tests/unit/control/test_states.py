"""The table of a row's states."""

import pytest

from wrennd.control.states import MOVES, PASSING, RowState, check_move, require
from wrennd.core.errors import WrongState
from wrennd.core.states import State


def test_every_state_of_a_record_is_one_of_a_row():
    assert {state.value for state in State} <= {state.value for state in RowState}
    assert set(MOVES) == set(RowState)


def test_the_end_is_the_end():
    assert MOVES[RowState.STOPPED] == frozenset()


@pytest.mark.parametrize("state", [state for state in RowState if state is not RowState.STOPPED])
def test_everything_can_be_destroyed(state):
    check_move(state, RowState.DESTROYING)


def test_from_each_passing_state_there_is_a_way_on():
    for state in PASSING:
        assert any(to not in PASSING for to in MOVES[state])


def test_a_wrong_move_is_a_bug():
    with pytest.raises(AssertionError):
        check_move(RowState.PAUSED, RowState.RUNNING)


@pytest.mark.parametrize("state", list(RowState))
def test_a_refusal_says_what_it_is_and_what_to_do(state):
    with pytest.raises(WrongState) as refused:
        require("abc", state, reason="since")
    assert "abc" in str(refused.value)
    assert str(refused.value).endswith(": since")
    assert refused.value.hint
