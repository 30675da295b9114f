"""Parts that are started, watched, started again and stopped."""

import os
import signal
import threading
from pathlib import Path

import pytest

from wrennd.core.deadline import Deadline
from wrennd.core.errors import Error
from wrennd.server.parts import Part
from wrennd.server.supervise import Stopped, Supervisor, signals

TESTS = Path(__file__).parents[2]


def part(name, said, how="stays"):
    return Part(
        name=name,
        module="server_part",
        args=(os.fspath(said), how),
        env={"PYTHONPATH": os.fspath(TESTS)},
        cwd=Path("/"),
        stop_s=30.0,
    )


def lines(said):
    return said.read_text().splitlines() if said.exists() else []


@pytest.fixture
def came():
    with signals() as found:
        yield found


@pytest.fixture
def supervised(tmp_path, came):
    """Two parts that run."""
    first, second = tmp_path / "first", tmp_path / "second"
    supervisor = Supervisor((part("first", first), part("second", second)), came)
    supervisor.start(lambda: bool(lines(first) and lines(second)), Deadline.after(30))
    yield supervisor, first, second
    supervisor.stop()


def test_all_parts_end_when_it_stops(supervised):
    supervisor, first, second = supervised
    supervisor.stop()
    for said in (first, second):
        pid, last = lines(said)
        assert last == "asked to end"
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    supervisor.stop()  # once more does nothing


def test_a_part_that_dies_is_started_again(supervised):
    supervisor, first, second = supervised
    os.kill(int(lines(first)[0]), signal.SIGKILL)

    def end_when_there_are_two():
        while len(lines(first)) < 2 and not over.wait(0.01):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    over = threading.Event()
    waiting = threading.Thread(target=end_when_there_are_two)
    waiting.start()
    try:
        supervisor.run()
    finally:
        over.set()
        waiting.join()
    assert len(lines(first)) == 2
    assert len(lines(second)) == 1


def test_a_part_that_ends_before_all_are_ready_is_an_error(tmp_path, came):
    supervisor = Supervisor((part("only", tmp_path / "said", "ends"),), came)
    try:
        with pytest.raises(Error, match="the only ended with 3"):
            supervisor.start(lambda: False, Deadline.after(30))
    finally:
        supervisor.stop()


def test_a_signal_ends_the_wait_for_readiness(tmp_path, came):
    said = tmp_path / "said"
    supervisor = Supervisor((part("only", said),), came)

    def interrupted():
        if lines(said):
            os.kill(os.getpid(), signal.SIGINT)
        return False

    try:
        with pytest.raises(Stopped):
            supervisor.start(interrupted, Deadline.after(30))
    finally:
        supervisor.stop()
    assert lines(said)[-1] == "asked to end"


def test_what_was_set_for_signals_is_set_again():
    before = signal.getsignal(signal.SIGTERM)
    with signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1
