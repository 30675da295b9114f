"""/freeze and /unfreeze, and the groups that they work on."""

import base64
import json

import pytest


def freeze(agent, query=""):
    status, _, body = agent.http("POST", f"/freeze{query}")
    return status, json.loads(body)


def send(agent, pid, data, kind="stdin"):
    given = {kind: base64.b64encode(data).decode()}
    assert agent.rpc("SendInput", {"process": {"pid": pid}, "input": given}) == (200, {})


@pytest.fixture
def frozen(freezable):
    """Freezes what runs when it is called; thawed at the end."""

    def call():
        status, reply = freeze(freezable)
        assert (status, reply["frozen"], reply["synced"]) == (200, True, True)
        assert reply["waitedMs"] >= 0

    yield call
    assert freezable.http("POST", "/unfreeze")[0] == 204


def test_frozen_processes_stand_still_and_so_do_their_streams(freezable, frozen):
    cat = freezable.start("cat")
    shell = freezable.start("sh", pty={"size": {"cols": 80, "rows": 24}})
    ticker = freezable.start("sh", "-c", "while :; do echo tick; sleep 0.01; done")
    send(freezable, cat.pid, b"now")
    assert cat.next()["data"] == {"stdout": base64.b64encode(b"now").decode()}
    frozen()
    assert freezable.is_alive()
    # What was written before the freeze may still come, from the client's own buffers; no more.
    assert ticker.is_silent(0.5)
    assert freezable.http("POST", "/unfreeze")[0] == 204
    send(freezable, cat.pid, b"later")
    assert cat.next()["data"] == {"stdout": base64.b64encode(b"later").decode()}
    send(freezable, shell.pid, b"exit 7\n", "pty")
    assert shell.rest().end["exitCode"] == 7
    freezable.rpc("CloseStdin", {"process": {"pid": cat.pid}})
    assert cat.rest().end["exitCode"] == 0
    selector = {"process": {"pid": ticker.pid}}
    ticker.close()
    with freezable.stream("Connect", selector) as again:
        assert again.next() == {"start": {"pid": ticker.pid}}
        assert again.next()["data"]
    assert freezable.rpc("SendSignal", selector | {"signal": "SIGNAL_SIGKILL"})[0] == 200


def test_only_the_host_is_answered_meanwhile(freezable, frozen):
    frozen()
    for method, path in (
        ("GET", "/metrics"),
        ("GET", "/envs"),
        ("GET", "/files?path=/etc/passwd"),
        ("POST", "/files?path=/tmp/x"),
        ("OPTIONS", "/files"),
        ("POST", "/process.Process/List"),
        ("GET", "/nothing"),
    ):
        status, _, body = freezable.http(method, path)
        assert (status, json.loads(body)["code"]) == (503, 503), path
    assert freezable.is_alive()
    # A pause that is tried again.
    frozen()
    assert freezable.http("POST", "/unfreeze")[0] == 204
    assert freezable.http("GET", "/metrics")[0] == 200


def test_what_was_being_asked_is_answered_afterwards(freezable, frozen):
    """A request that is half here when the freeze comes, and one whose answer is on its way."""
    cat = freezable.start("cat")
    with freezable.socket() as half:
        half.sendall(b"POST /process.Process/List HTTP/1.1\r\nContent-Type: application/json\r\n")
        half.sendall(b"Content-Length: 2\r\nConnection: close\r\n\r\n{")
        assert freezable.is_alive()
        frozen()
        half.sendall(b"}")
        half.settimeout(0.3)
        with pytest.raises(TimeoutError):
            half.recv(1)
        half.settimeout(20)
        assert freezable.http("POST", "/unfreeze")[0] == 204
        reply = b""
        while data := half.recv(1 << 16):
            reply += data
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert b'"cmd":"cat"' in reply
    freezable.rpc("CloseStdin", {"process": {"pid": cat.pid}})
    assert cat.rest().end["exitCode"] == 0


def test_a_client_that_goes_away_meanwhile_is_let_go(freezable, frozen):
    stream = freezable.start("cat")
    frozen()
    stream.close()
    assert freezable.http("POST", "/unfreeze")[0] == 204
    message = {"process": {"pid": stream.pid}, "signal": "SIGNAL_SIGKILL"}
    assert freezable.rpc("SendSignal", message) == (200, {})


def test_the_wait_is_bounded(freezable, frozen):
    status, reply = freeze(freezable, "?maxWaitMs=0")
    assert status == 200
    assert set(reply) == {"frozen", "synced", "waitedMs"}
    for text in ("x", "-1", "9999999999"):
        assert freeze(freezable, f"?maxWaitMs={text}")[0] == 400


def test_descendants_are_in_the_group_too(freezable, frozen):
    done = freezable.sh("cat /proc/self/cgroup")
    assert b"/user\n" in done.output["stdout"]
    done = freezable.sh("cat /proc/self/cgroup", pty={"size": {"cols": 80, "rows": 24}})
    assert b"/ptys\r\n" in done.output["pty"]


def test_without_groups_it_is_refused(local_agent):
    status, reply = freeze(local_agent)
    assert (status, reply["code"]) == (501, 501)
    assert local_agent.http("POST", "/unfreeze")[0] == 204
