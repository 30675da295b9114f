"""How `wrenn run` hands output on, and how its time ends."""

import os
import time

import pytest

from wrennd.cli import follow
from wrennd.core.sandboxes import Output


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def fill(fd):
    """Until a write would wait; returns how much that was."""
    os.set_blocking(fd, False)
    count = 0
    try:
        while True:
            count += os.write(fd, b"f" * 65536)
    except BlockingIOError:
        return count
    finally:
        os.set_blocking(fd, True)


def test_a_write_that_the_alarm_ended_leaves_nothing_to_be_written_later(pipe):
    reader, writer = pipe
    filled = fill(writer)
    with pytest.raises(follow.TimedOut), follow.alarm(0.05):
        follow.Streamed(stdout=writer).write(Output("stdout", b"late"))
    assert os.read(reader, filled + 9) == b"f" * filled
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 9)


def test_the_alarm_is_raised_once_and_rings_until_it_was_heard():
    count = 0

    def wait():
        nonlocal count
        try:
            time.sleep(9)
        except follow.TimedOut:
            count += 1
            time.sleep(0.1)  # rings go by while the first is dealt with
            raise

    with pytest.raises(follow.TimedOut), follow.alarm(0.01, repeat_s=0.01):
        wait()
    assert count == 1


def test_a_pipe_that_somebody_made_non_blocking_is_waited_for(pipe):
    reader, writer = pipe
    filled = fill(writer)
    os.set_blocking(writer, False)
    seen = []

    def select(_readers, writers, _others):
        seen.append(writers)
        os.read(reader, filled)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(follow.select, "select", select)
        follow.Streamed(stdout=writer).write(Output("stdout", b"late"))
    assert (os.read(reader, 9), seen) == (b"late", [[writer]])
