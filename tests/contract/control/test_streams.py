"""WebSockets of commands and terminals."""

import base64
import json

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus


@pytest.fixture(scope="module")
def box(server):
    return server.create()


def frames(socket):
    """All frames to the end, binary ones as they are."""
    found = []
    try:
        while True:
            data = socket.recv(timeout=60)
            found.append(data if isinstance(data, bytes) else json.loads(data))
    except ConnectionClosed:
        return found


def stream(server, path, *sent):
    with server.socket(path) as socket:
        for frame in sent:
            socket.send(frame if isinstance(frame, bytes) else json.dumps(frame))
        return frames(socket)


@pytest.mark.parametrize("shape", ["sandboxes", "capsules"])
def test_exec(server, box, shape):
    line = "echo out; echo err >&2; exit 3"
    start = {"type": "start", "cmd": "/bin/sh", "args": ["-c", line]}
    found = stream(server, f"/v1/{shape}/{box}/exec/stream", start)
    assert found[0]["type"] == "start"
    assert found[0]["pid"] > 0
    assert found[1:] == [
        {"type": "stdout", "data": "out\n"},
        {"type": "stderr", "data": "err\n"},
        {"type": "exit", "exit_code": 3},
    ]


def test_input_as_base64(server, box):
    found = stream(
        server,
        f"/v1/sandboxes/{box}/exec/stream",
        {"type": "start", "cmd": "cat", "stdin": True, "encoding": "base64"},
        {"type": "stdin", "data": base64.b64encode(b"\xff\x00").decode()},
        {"type": "stdin_close"},
    )
    assert found[1] == {"type": "stdout", "data": base64.b64encode(b"\xff\x00").decode()}
    assert found[-1] == {"type": "exit", "exit_code": 0}


def test_a_character_in_two_pieces(server, box):
    start = {"type": "start", "cmd": "sh", "args": ["-c", "printf '\\xc3'; printf '\\xa4\\xc3'"]}
    found = stream(server, f"/v1/sandboxes/{box}/exec/stream", start)
    assert [frame.get("data") for frame in found[1:-1]] == ["ä", "�"]


def test_stop_and_signal(server, box):
    path, start = (
        f"/v1/sandboxes/{box}/exec/stream",
        {"type": "start", "cmd": "sleep", "args": ["99"]},
    )
    assert stream(server, path, start, {"type": "stop"})[-1]["exit_code"] == 137
    signal = {"type": "signal", "signal": "SIGTERM"}
    assert stream(server, path, start, signal)[-1]["exit_code"] == 143


def test_a_command_ends_with_its_socket(server, box):
    with server.socket(f"/v1/sandboxes/{box}/exec/stream") as socket:
        socket.send(json.dumps({"type": "start", "cmd": "sleep", "args": ["99"]}))
        pid = json.loads(socket.recv(timeout=60))["pid"]
        process = server.agent.boxes[box].guest.processes[pid]
    while process.exit_code is None:
        server.api.get("/health")
    assert process.exit_code == 137


def test_following_a_process(server, box):
    body = {"cmd": "sleep", "args": ["99"], "background": True}
    pid = server.api.post(f"/v1/sandboxes/{box}/exec", json=body).json()["pid"]
    with server.socket(f"/v1/sandboxes/{box}/processes/{pid}/stream") as socket:
        assert json.loads(socket.recv(timeout=60)) == {"type": "start", "pid": pid}
        server.api.delete(f"/v1/sandboxes/{box}/processes/{pid}")
        assert frames(socket) == [{"type": "exit", "exit_code": 137}]


@pytest.mark.parametrize(
    "first",
    [
        {"type": "start"},
        {"type": "start", "cmd": ""},
        {"type": "start", "cmd": "a\0"},
        {"type": "start", "cmd": "echo", "args": [1]},
        {"type": "start", "cmd": "echo", "encoding": "rot13"},
        {"type": "start", "cmd": "no-such-command"},
        {"type": "stdin", "data": "x"},
        {"cmd": "echo"},
        [],
        "text",
        b"bytes",
    ],
)
def test_wrong_first_frames(server, box, first):
    found = stream(server, f"/v1/sandboxes/{box}/exec/stream", first)
    assert [frame["type"] for frame in found] == ["error"]
    assert found[0]["code"] in ("invalid_argument", "command_not_found")


def test_a_wrong_frame_later(server, box):
    start = {"type": "start", "cmd": "sleep", "args": ["99"]}
    found = stream(server, f"/v1/sandboxes/{box}/exec/stream", start, {"type": "dance"})
    assert found[-1]["type"] == "error"


@pytest.mark.parametrize(("shape", "is_binary"), [("sandboxes", False), ("capsules", True)])
def test_a_terminal(server, box, shape, is_binary):
    def text(frame):
        return frame.decode() if is_binary else base64.b64decode(frame["data"]).decode()

    with server.socket(f"/v1/{shape}/{box}/pty") as socket:
        socket.send(json.dumps({"type": "start", "cmd": "bash", "cols": 100, "rows": 30}))
        started = json.loads(socket.recv(timeout=60))
        assert started["type"] == "started"
        socket.send(json.dumps({"type": "resize", "cols": 120, "rows": 40}))
        if is_binary:
            socket.send(b"size\n")
        else:
            typed = base64.b64encode(b"size\n").decode()
            socket.send(json.dumps({"type": "input", "data": typed}))
        shown = ""
        while "40 120" not in shown:
            data = socket.recv(timeout=60)
            shown += text(data if isinstance(data, bytes) else json.loads(data))
    with server.socket(f"/v1/{shape}/{box}/pty") as socket:
        socket.send(json.dumps({"type": "connect", "tag": started["tag"]}))
        assert json.loads(socket.recv(timeout=60)) == started
        socket.send(json.dumps({"type": "kill"}))
        assert frames(socket)[-1] == {"type": "exit", "exit_code": 137}


def test_a_terminal_that_is_not_there(server, box):
    found = stream(server, f"/v1/sandboxes/{box}/pty", {"type": "connect", "tag": "none"})
    assert found[0]["type"] == "error"
    assert found[0]["fatal"] is True


# Who may open one


def test_without_a_key(server, box):
    with server.socket(f"/v1/sandboxes/{box}/exec/stream", Cookie="x=y") as socket:
        socket.send(json.dumps({"type": "start", "cmd": "echo"}))
        found = frames(socket)
    assert found[0]["code"] == "unauthorized"


def test_a_key_in_the_first_frame(server, box):
    with server.socket(f"/v1/sandboxes/{box}/exec/stream", Cookie="x=y") as socket:
        socket.send(json.dumps({"type": "auth", "token": server.key}))
        socket.send(json.dumps({"type": "start", "cmd": "echo", "args": ["hi"]}))
        assert frames(socket)[-1] == {"type": "exit", "exit_code": 0}


def test_a_wrong_key(server, box):
    with pytest.raises(InvalidStatus) as refused:
        server.socket(f"/v1/sandboxes/{box}/exec/stream", **{"X-API-Key": "e2b_" + "0" * 40})
    assert refused.value.response.status_code == 401


def test_another_origin(server, box):
    headers = {"X-API-Key": server.key, "Origin": "http://evil.example"}
    with pytest.raises(InvalidStatus) as refused:
        server.socket(f"/v1/sandboxes/{box}/exec/stream", **headers)
    assert refused.value.response.status_code == 403
    with server.socket(f"/v1/sandboxes/{box}/exec/stream", **{**headers, "Origin": server.url}):
        pass


def test_another_project(server, box):
    with server.socket(f"/v1/sandboxes/{box}/pty", **{"X-API-Key": server.other_key}) as socket:
        socket.send(json.dumps({"type": "start"}))
        assert frames(socket)[0]["code"] == "not_found"


def test_a_revoked_key_ends_its_streams(server, box):
    made = server.api.post("/v1/keys", json={"name": "short"}).json()
    with server.socket(f"/v1/sandboxes/{box}/exec/stream", **{"X-API-Key": made["key"]}) as socket:
        socket.send(json.dumps({"type": "start", "cmd": "sleep", "args": ["99"]}))
        assert json.loads(socket.recv(timeout=60))["type"] == "start"
        server.api.delete(f"/v1/keys/{made['id']}")
        assert frames(socket) == []
        assert socket.close_code == 1008


def test_a_sandbox_that_is_destroyed_ends_its_streams(server):
    box = server.create()
    with server.socket(f"/v1/sandboxes/{box}/exec/stream") as socket:
        socket.send(json.dumps({"type": "start", "cmd": "sleep", "args": ["99"]}))
        assert json.loads(socket.recv(timeout=60))["type"] == "start"
        server.api.delete(f"/v1/sandboxes/{box}")
        assert frames(socket)[-1]["type"] in ("exit", "error")
