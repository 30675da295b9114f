"""/init and the access token."""

import base64
import datetime
import json
from http.client import HTTPException

import pytest


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()


def init(agent, headers=None, **order):
    status, found, body = agent.http("POST", "/init", json.dumps(order), headers)
    return status, found, body


def token(value: str) -> dict:
    return {"X-Access-Token": value}


def test_init_answers_with_the_version(fresh_agent):
    status, headers, body = init(fresh_agent, timestamp=now())
    assert (status, body) == (204, b"")
    assert headers["x-envd-version"] == "0.6.13"
    assert fresh_agent.http("POST", "/init", b"")[0] == 204


def test_everything_is_open_until_there_is_a_token(fresh_agent):
    assert fresh_agent.run("true").end["exitCode"] == 0
    assert init(fresh_agent, accessToken="one")[0] == 204
    assert fresh_agent.rpc("List", {})[0] == 401
    for wrong in ("", "on", "onee", "One", "ü"):
        assert fresh_agent.http("GET", "/files?path=/etc/passwd", headers=token(wrong))[0] == 401
    status, _, body = fresh_agent.http("POST", "/process.Process/Start", b"")
    assert (status, json.loads(body)["code"]) == (401, 401)
    assert fresh_agent.http("GET", "/health")[0] == 204
    assert fresh_agent.http("OPTIONS", "/files")[0] == 204
    fresh_agent.headers = token("one")
    assert fresh_agent.run("true").end["exitCode"] == 0


def test_only_the_present_token_brings_a_new_one(fresh_agent):
    assert init(fresh_agent, accessToken="one")[0] == 204
    assert init(fresh_agent, accessToken="two")[0] == 401
    assert init(fresh_agent, token("no"), accessToken="two")[0] == 401
    assert init(fresh_agent)[0] == 401
    assert init(fresh_agent, token("one"), accessToken="two")[0] == 204
    assert fresh_agent.http("GET", "/files?path=/", headers=token("one"))[0] == 401
    # The reply was lost, the host repeats itself.
    assert init(fresh_agent, token("one"), accessToken="two")[0] == 204
    assert init(fresh_agent, token("two"))[0] == 204
    assert fresh_agent.rpc("List", {}, **token("two"))[0] == 200
    assert init(fresh_agent, token("two"), accessToken="")[0] == 204
    assert fresh_agent.rpc("List", {})[0] == 200


def test_a_new_token_drops_the_connections_of_the_old_one(fresh_agent):
    assert init(fresh_agent, accessToken="one")[0] == 204
    fresh_agent.headers = token("one")
    stream = fresh_agent.start("sleep", "60")
    assert init(fresh_agent, accessToken="one")[0] == 204
    selector = {"process": {"pid": stream.pid}}
    assert fresh_agent.rpc("List", {})[0] == 200
    assert init(fresh_agent, token("one"), accessToken="two")[0] == 204
    with pytest.raises((HTTPException, OSError)):
        stream.next()
    stream.close()
    fresh_agent.headers = token("two")
    assert fresh_agent.rpc("SendSignal", selector | {"signal": 9}) == (200, {})


def test_environment_is_replaced_and_requests_win(fresh_agent):
    init(fresh_agent, envVars={"A": "global", "B": "global", "PATH": "/usr/bin:/bin"})
    script = "echo $A $B $PATH"
    done = fresh_agent.sh(script, envs={"B": "own"})
    assert done.output["stdout"] == b"global own /usr/bin:/bin\n"
    init(fresh_agent, timestamp=now())
    assert fresh_agent.sh("echo $A").output["stdout"] == b"global\n"
    init(fresh_agent, envVars={"B": "new"})
    assert fresh_agent.sh("echo $A$B").output["stdout"] == b"new\n"


def test_default_directory(fresh_agent, folder):
    init(fresh_agent, defaultWorkdir=folder)
    assert fresh_agent.sh("pwd").output["stdout"].decode().strip() == folder
    assert fresh_agent.sh("pwd", cwd="/").output["stdout"] == b"/\n"
    init(fresh_agent, defaultWorkdir="")
    assert fresh_agent.sh("pwd").output["stdout"].decode().strip() != folder


def test_repeating_an_order_changes_nothing(fresh_agent):
    order = {"accessToken": "t", "envVars": {"A": "1"}, "timestamp": now()}
    for _ in range(20):
        assert init(fresh_agent, **order)[0] == 204
    fresh_agent.headers = token("t")
    assert fresh_agent.sh("echo $A").output["stdout"] == b"1\n"


def test_a_moment_of_the_past_after_a_later_one_is_ignored(fresh_agent):
    # Were it heeded, this test would set the clock of the machine it runs on back by years; it is
    # sent only after a later moment was accepted.
    assert init(fresh_agent, timestamp=now())[0] == 204
    assert init(fresh_agent, timestamp="2001-01-01T00:00:00Z", envVars={"A": "1"})[0] == 204
    assert fresh_agent.sh("echo $A").output["stdout"] == b"1\n"
    year = int(fresh_agent.run("date", "+%Y").output["stdout"])
    assert year == datetime.datetime.now(datetime.UTC).year


@pytest.mark.parametrize(
    "order",
    [
        {"envVars": {"A=B": "x"}},
        {"envVars": ["A"]},
        {"envVars": {"A": 5}},
        {"accessToken": 5},
        {"timestamp": "yesterday"},
        {"timestamp": 5},
        {"defaultUser": "nobody-of-that-name"},
        {"defaultWorkdir": "a\0b"},
        {"entropy": "?"},
    ],
)
def test_a_bad_order_is_refused_whole(fresh_agent, order):
    good = {"envVars": {"GOOD": "1"}, "accessToken": "t"}
    status, _, body = init(fresh_agent, **(good | order))
    assert (status, json.loads(body)["code"]) == (400, 400)
    assert fresh_agent.sh("echo $GOOD").output["stdout"] == b"\n"


def test_broken_bodies(fresh_agent):
    assert fresh_agent.http("POST", "/init", b"{")[0] == 400
    assert fresh_agent.http("POST", "/init", b"[]")[0] == 400
    assert fresh_agent.http("POST", "/init", b" " * (2 << 20))[0] == 413
    assert fresh_agent.is_alive()


@pytest.mark.root
def test_entropy_is_mixed_in(fresh_agent):
    seed = base64.b64encode(bytes(range(64))).decode()
    assert init(fresh_agent, entropy=seed)[0] == 204
    assert init(fresh_agent, entropy=base64.b64encode(bytes(513)).decode())[0] == 400
