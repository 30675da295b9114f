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


def test_frozen_processes_stand_still(freezable, frozen):
    cat = freezable.start("cat")
    shell = freezable.start("sh", pty={"size": {"cols": 80, "rows": 24}})
    frozen()
    send(freezable, cat.pid, b"later")
    send(freezable, shell.pid, b"exit 7\n", "pty")
    assert freezable.is_alive()
    # The groups are empty but for these, so all of them stand.
    late = freezable.stream("Connect", {"process": {"pid": cat.pid}})
    assert late.next() == {"start": {"pid": cat.pid}}
    assert freezable.http("POST", "/unfreeze")[0] == 204
    assert cat.next()["data"] == {"stdout": base64.b64encode(b"later").decode()}
    assert shell.rest().end["exitCode"] == 7
    freezable.rpc("CloseStdin", {"process": {"pid": cat.pid}})
    assert cat.rest().end["exitCode"] == 0
    late.close()


def test_what_starts_meanwhile_waits(freezable, frozen):
    frozen()
    connection = freezable.connection()
    message = b'{"process":{"cmd":"echo","args":["hi"]}}'
    connection.request(
        "POST",
        "/process.Process/Start",
        b"\0" + len(message).to_bytes(4, "big") + message,
        {"Content-Type": "application/connect+json", **freezable.headers},
    )
    assert freezable.rpc("List", {})[0] == 200
    assert freezable.http("POST", "/unfreeze")[0] == 204
    body = connection.getresponse().read()
    assert b'"stdout":"aGkK"' in body
    connection.close()


def test_what_is_frozen_can_be_killed(freezable, frozen):
    cat = freezable.start("cat")
    frozen()
    frozen()
    message = {"process": {"pid": cat.pid}, "signal": "SIGNAL_SIGKILL"}
    assert freezable.rpc("SendSignal", message) == (200, {})
    assert cat.rest().end["status"] == "signal: killed"


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


def test_without_groups_it_is_refused(fresh_agent):
    status, reply = freeze(fresh_agent)
    assert (status, reply["code"]) == (501, 501)
    assert fresh_agent.http("POST", "/unfreeze")[0] == 204
