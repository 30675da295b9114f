import json

import pytest

from wrennd.client import frames
from wrennd.client.frames import Begun, Ping
from wrennd.core.errors import CommandNotFound, Error
from wrennd.core.model import Command, TerminalSize
from wrennd.core.sandboxes import Exit, Output

COMMAND = Command(argv=("cat", "-n"), env={"A": "b"}, cwd="/tmp", user="user", has_stdin=True)


def test_a_command_with_pipes_asks_for_exact_bytes():
    opening = frames.opening("x", COMMAND)
    assert opening.path == "/v1/sandboxes/x/exec/stream"
    assert json.loads(opening.first) == {
        "type": "start",
        "cmd": "cat",
        "args": ["-n"],
        "envs": {"A": "b"},
        "user": "user",
        "cwd": "/tmp",
        "stdin": True,
        "encoding": "base64",
    }


def test_a_command_with_a_terminal_sends_binary_frames():
    size = TerminalSize(cols=80, rows=24)
    opening = frames.opening("x", Command(argv=("sh",), terminal=size))
    assert opening.path == "/v1/sandboxes/x/pty"
    assert json.loads(opening.first)["cols"] == 80
    assert frames.stdin(b"\xff", is_terminal=opening.is_terminal) == b"\xff"


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        ({"type": "start", "pid": 3}, Begun(pid=3)),
        ({"type": "started", "pid": 3, "tag": "t"}, Begun(pid=3, tag="t")),
        ({"type": "stdout", "data": "/w=="}, Output("stdout", b"\xff")),
        ({"type": "stderr", "data": ""}, Output("stderr", b"")),
        ({"type": "output", "data": "YQ=="}, Output("stdout", b"a")),
        ({"type": "exit", "exit_code": 137}, Exit(137)),
        ({"type": "ping"}, Ping()),
        ({"type": "of the future"}, None),
    ],
)
def test_frames_are_events(frame, event):
    assert frames.read(json.dumps(frame)) == event


def test_a_binary_frame_is_output():
    assert frames.read(b"\0\xff") == Output("stdout", b"\0\xff")


def test_an_error_frame_is_the_error_that_it_names():
    frame = {"type": "error", "code": "command_not_found", "data": "no such program: x"}
    with pytest.raises(CommandNotFound, match="no such program"):
        frames.read(json.dumps(frame))


@pytest.mark.parametrize("frame", ["", "[]", "3", "{}", '{"type":"exit"}', '{"type":"stdout"}'])
def test_what_is_no_frame_is_an_error(frame):
    with pytest.raises(Error, match="a frame that is none"):
        frames.read(frame)
