"""A worker that is stuck is told from one that works, is idle, or was frozen with its host."""

import pytest

from wrennd.pager.board import ANSWERED, READ, Board
from wrennd.pager.stall import LOOKS, Stall


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board():
    return Board(1)


def looks(stall, clock, seconds):
    """What is seen when it is looked at once for each of `seconds`."""
    seen = []
    for step in seconds:
        clock.now += step
        seen.append(stall.is_seen())
    return seen


def test_a_fault_that_waits_without_progress(clock, board):
    stall = Stall(board, LOOKS, clock)
    board.counters[READ] = 1
    assert looks(stall, clock, [1] * LOOKS) == [False] * (LOOKS - 1) + [True]
    assert looks(stall, clock, [1] * LOOKS) == [False] * (LOOKS - 1) + [True]


def test_an_idle_worker_is_not_stuck(clock, board):
    stall = Stall(board, LOOKS, clock)
    board.counters[READ] = board.counters[ANSWERED] = 7
    assert looks(stall, clock, [1] * 20) == [False] * 20


def test_a_busy_worker_is_not_stuck(clock, board):
    stall = Stall(board, LOOKS, clock)
    for _ in range(20):
        board.counters[READ] += 2
        board.counters[ANSWERED] += 1
        assert looks(stall, clock, [1]) == [False]


def test_hours_without_a_look_are_no_stall(clock, board):
    stall = Stall(board, LOOKS, clock)
    board.counters[READ] = 1
    assert looks(stall, clock, [3600, 0, 0, 0, 0, 0, 0]) == [False] * 7


def test_many_looks_at_once_are_one(clock, board):
    stall = Stall(board, LOOKS, clock)
    board.counters[READ] = 1
    assert looks(stall, clock, [0] * 100) == [False] * 100
