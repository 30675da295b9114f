"""Commands in a sandbox through the API."""

import base64

import pytest


@pytest.fixture(scope="module")
def at(server):
    return f"/v1/sandboxes/{server.create(env={'FROM_CREATE': '1'})}"


def run(server, at, line, **more):
    return server.api.post(f"{at}/exec", json={"cmd": "/bin/sh", "args": ["-c", line], **more})


def test_output_and_exit_code(server, at):
    done = run(server, at, "echo out; echo err >&2; exit 3").json()
    assert (done["stdout"], done["stderr"], done["exit_code"]) == ("out\n", "err\n", 3)
    assert done["encoding"] == "utf-8"
    assert done["truncated"] is False


def test_environment_directory_user(server, at):
    done = run(server, at, "env; pwd; whoami", envs={"A": "b"}, cwd="/tmp", user="user").json()
    assert done["stdout"].endswith("FROM_CREATE=1\nA=b\n/tmp\nuser\n")


def test_bytes_that_are_no_text(server, at):
    done = run(server, at, "printf '\\xff\\x00'; echo text >&2").json()
    assert done["encoding"] == "base64"
    assert base64.b64decode(done["stdout"]) == b"\xff\x00"
    assert base64.b64decode(done["stderr"]) == b"text\n"


def test_input(server, at):
    body = {"cmd": "cat", "stdin": base64.b64encode(b"in\n").decode()}
    assert server.api.post(f"{at}/exec", json=body).json()["stdout"] == "in\n"


def test_out_of_time(server, at):
    assert run(server, at, "sleep 100", timeout_sec=1).json()["exit_code"] == 124


def test_in_the_background(server, at):
    started = run(server, at, "sleep 100", background=True, tag="mine")
    assert started.status_code == 202
    assert started.json()["tag"] == "mine"
    listed = server.api.get(f"{at}/processes").json()["processes"]
    assert [each["tag"] for each in listed] == ["mine"]
    assert server.api.delete(f"{at}/processes/mine").status_code == 204
    assert server.api.delete(f"{at}/processes/99999").status_code == 404
    wrong = server.api.delete(f"{at}/processes/mine", params={"signal": "SIGUSR1"})
    assert wrong.status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"cmd": ""},
        {"cmd": 5},
        {"cmd": ["echo"]},
        {"cmd": "a\0b"},
        {"cmd": "echo", "args": "x"},
        {"cmd": "echo", "args": [1]},
        {"cmd": "echo", "args": ["\0"]},
        {"cmd": "echo", "timeout_sec": -1},
        {"cmd": "echo", "timeout_sec": 1.5},
        {"cmd": "echo", "timeout_sec": "30"},
        {"cmd": "echo", "timeout_sec": 1 << 40},
        {"cmd": "echo", "envs": {"A=B": "c"}},
        {"cmd": "echo", "envs": {"A": 1}},
        {"cmd": "echo", "cwd": "/nowhere"},
        {"cmd": "echo", "user": "nobody-here"},
        {"cmd": "echo", "stdin": "not base64!"},
        {"cmd": "no-such-command"},
        {"cmd": "sleep", "background": True, "tag": "x" * 65},
        {"cmd": "sleep", "background": "yes"},
        [],
        "echo",
        None,
    ],
)
def test_wrong_bodies(server, at, body):
    refused = server.api.post(f"{at}/exec", json=body)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["message"]


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe", b'{"cmd": "\\ud800"}', b"[" * 100_000])
def test_what_is_no_json(server, at, raw):
    headers = {"Content-Type": "application/json"}
    refused = server.api.post(f"{at}/exec", content=raw, headers=headers)
    assert refused.status_code == 400, refused.text


def test_too_large(server, at):
    refused = run(server, at, "x" * (2 << 20))
    assert refused.status_code == 413
    assert refused.json()["error"]["code"] == "too_large"


def test_metrics_and_ping(server, at):
    assert server.api.post(f"{at}/ping").status_code == 204
    found = server.api.get(f"{at}/metrics", params={"range": "1h"}).json()
    assert found["range"] == "1h"
    assert found["points"][0]["cpu_pct"] == 12.5
    assert server.api.get(f"{at}/metrics", params={"range": "1y"}).status_code == 400
