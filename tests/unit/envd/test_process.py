"""The end of a process as an event. Its life is in the contract suite."""

import os

import pytest

from wrennd.envd.process import data_event, end_event


def status_of(action) -> int:
    pid = os.fork()
    if not pid:
        action()
        os._exit(0)
    return os.waitpid(pid, 0)[1]


@pytest.mark.parametrize("code", [0, 1, 255])
def test_exit_codes(code):
    end = end_event(status_of(lambda: os._exit(code)))
    assert (end["exitCode"], end["exited"], end["status"]) == (code, True, f"exit status {code}")
    assert end.get("error") == (f"exit status {code}" if code else None)


@pytest.mark.parametrize(("number", "text"), [(9, "killed"), (2, "interrupt"), (30, "signal 30")])
def test_signals(number, text):
    end = end_event(number)
    assert end["status"] == end["error"] == f"signal: {text}"
    assert (end["exitCode"], end["exited"], end["signal"]) == (-1, False, number)


def test_core_dumps_are_told():
    assert end_event(6 | 0x80)["status"] == "signal: aborted (core dumped)"


def test_data():
    assert data_event("stderr", b"hi\n") == b'{"event":{"data":{"stderr":"aGkK"}}}'
