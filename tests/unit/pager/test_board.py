"""What keeper and worker share."""

import os

from wrennd.pager.board import (
    ANSWERED,
    DEFERRED,
    INSTALLED,
    READ,
    REMOVALS,
    REMOVED,
    TOUCHED,
    Board,
)


def test_a_forked_child_writes_what_its_parent_reads():
    board = Board(10)
    child = os.fork()
    if child == 0:
        board.state[2:4] = bytes([INSTALLED]) * 2
        board.state[5] = TOUCHED
        board.state[7:10] = bytes([REMOVED]) * 3
        board.counters[READ] = 12
        board.counters[ANSWERED] = 10
        board.counters[DEFERRED] = 2
        board.counters[REMOVALS] = 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    counts = board.counts()
    assert (counts.installed, counts.touched, counts.removed) == (3, 1, 3)
    assert (counts.faults_read, counts.faults_answered, board.pending) == (12, 10, 2)
    assert (counts.deferred, counts.removals) == (2, 1)
    assert board.touched_flags() == bytes([0, 0, 0, 0, 0, 1, 0, 0, 0, 0])


def test_progress_is_seen():
    board = Board(1)
    before = board.progress()
    board.counters[READ] += 1
    assert board.progress() == before
    board.counters[ANSWERED] += 1
    assert board.progress() != before
