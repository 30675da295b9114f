"""Who may read and write files by a signature instead of the token."""

import base64
import hashlib
import json
import time

import pytest

TOKEN = "0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0"
KNOWN = "v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E"


def sign(path, operation, username="", expiration=""):
    text = f"{path}:{operation}:{username}:{TOKEN}" + (f":{expiration}" if expiration else "")
    digest = hashlib.sha256(text.encode()).digest()
    return "v1_" + base64.b64encode(digest).decode().rstrip("=")


@pytest.fixture
def guarded(folder, fresh_agent):
    """An agent that asks for the token."""
    body = json.dumps({"accessToken": TOKEN})
    assert fresh_agent.http("POST", "/init", body)[0] == 204
    return fresh_agent


def test_the_signature_is_the_known_one():
    assert sign("hello.txt", "read", "user") == KNOWN


def test_signatures_open_what_they_name(guarded, folder):
    path = f"{folder}/ü f"
    later = str(int(time.time()) + 60)
    assert guarded.put(path, b"x", signature=sign(path, "write"))[0] == 200
    assert guarded.get(path, signature=sign(path, "read"))[2] == b"x"
    signature = sign(path, "read", "root", later)
    query = {"signature": signature, "username": "root", "signature_expiration": later}
    assert guarded.get(path, **query)[0] == 200
    assert guarded.get(path, {"X-Access-Token": TOKEN})[0] == 200


def test_and_nothing_else(guarded, folder):
    path = f"{folder}/f"
    guarded.put(path, b"x", signature=sign(path, "write"))
    later = str(int(time.time()) + 60)
    for query in (
        {"signature": sign(path, "write")},
        {"signature": sign(f"{path}2", "read")},
        {"signature": sign(path, "read", "root")},
        {"signature": sign(path, "read"), "username": "root"},
        {"signature": sign(path, "read"), "signature_expiration": later},
        {"signature": sign(path, "read", "", later), "signature_expiration": later + "0"},
        {"signature": sign(path, "read") + "="},
        {"signature": "ü"},
        {"signature": "v1_"},
    ):
        status, _, body = guarded.get(path, **query)
        assert (status, json.loads(body)) == (401, {"code": 401, "message": "invalid signature"})
    for headers in (None, {"X-Access-Token": "wrong"}):
        assert guarded.get(path, headers)[0] == 401
    assert guarded.get(path, {"X-Access-Token": "wrong"}, signature=sign(path, "read"))[0] == 401
    assert guarded.http("POST", "/files/compose?signature=" + sign("", "write"), b"{}")[0] == 401


def test_an_expired_signature_says_so(guarded, folder):
    path = f"{folder}/f"
    past = str(int(time.time()) - 60)  # its clock is another one
    query = {"signature": sign(path, "read", "", past), "signature_expiration": past}
    status, _, body = guarded.get(path, **query)
    assert (status, json.loads(body)) == (
        401,
        {"code": 401, "message": "signature is already expired"},
    )
    assert guarded.get(path, signature="v1_", signature_expiration="soon")[0] == 400


def test_without_a_token_a_signature_matters_to_nobody(fresh_agent):
    assert fresh_agent.get("/proc/uptime", signature="v1_nonsense")[0] == 200
