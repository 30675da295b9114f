"""Both clients against an HTTP server of the test's, which says what it is told to say."""

import asyncio
import inspect
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from wrennd.client import AsyncClient, Client, calls, flows
from wrennd.core.errors import Error, NotFound, Unauthorized, Unavailable, WrongState

BOX = {"id": "a" * 20, "state": "running", "template": "base", "new_field": 1}


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `answers` and keeps what was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = []
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        status, said = self.server.answers.pop(0)
        data = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = do_PUT = answer

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture(params=["blocking", "awaiting"])
def act(request, server):
    """Call a method of either client: `act("get", ...)`."""

    def blocking(name, *args, **kwargs):
        with Client(server.url, "e2b_key") as client:
            return getattr(client, name)(*args, **kwargs)

    async def awaiting(name, *args, **kwargs):
        async with AsyncClient(server.url, "e2b_key") as client:
            return await getattr(client, name)(*args, **kwargs)

    if request.param == "blocking":
        return blocking
    return lambda name, *args, **kwargs: asyncio.run(awaiting(name, *args, **kwargs))


def test_a_call_carries_the_key_and_its_answer_is_typed(server, act):
    server.answers = [(200, BOX | {"expiry": {"after": "idle", "seconds": 5, "action": "pause"}})]
    found = act("get", BOX["id"])
    assert (found.id, found.state, found.expiry.seconds) == (BOX["id"], "running", 5)
    method, path, headers, _ = server.asked[0]
    assert (method, path) == ("GET", f"/v1/sandboxes/{BOX['id']}")
    assert headers["X-API-Key"] == "e2b_key"


def test_errors_are_known_by_their_code(server, act):
    error = {"code": "wrong_state", "message": "it is paused", "hint": "resume it"}
    server.answers = [(409, {"error": error})]
    with pytest.raises(WrongState, match="it is paused") as caught:
        act("get", "x")
    assert caught.value.hint == "resume it"


def test_a_key_that_does_not_count_is_looked_for_where_it_is_set(server, act):
    error = {"code": "unauthorized", "message": "it is unknown", "hint": "send X-API-Key"}
    server.answers = [(401, {"error": error})]
    with pytest.raises(Unauthorized, match="it is unknown") as caught:
        act("get", "x")
    assert "WRENN_API_KEY" in caught.value.hint


def test_a_stranger_s_answer_is_an_error_that_says_so(server, act):
    server.answers = [(418, b"<html>"), (200, b"<html>"), (200, {"id": 3})]
    with pytest.raises(Error, match="status 418"):
        act("get", "x")
    with pytest.raises(Error, match="not JSON"):
        act("get", "x")
    with pytest.raises(Error, match="no Sandbox"):
        act("get", "x")


def test_create_waits_until_it_runs_and_can_be_repeated(server, act):
    starting = BOX | {"state": "starting"}
    done = {"operation": "create", "at": "2026-01-01T00:00:00Z", "result": "ok", "total_ms": 9}
    phases = [{"name": "boot", "ms": 8.5}]
    operations = {"operations": [done | {"operation": "other"}, done | {"phases": phases}]}
    server.answers = [(202, starting), (200, starting), (200, BOX), (200, operations)]
    made = act("create", "base", vcpus=2)
    assert (made.state, made.timings.phases[0].name) == ("running", "boot")
    _, path, headers, body = server.asked[0]
    assert (path, json.loads(body)) == ("/v1/sandboxes", {"template": "base", "vcpus": 2})
    assert headers["Idempotency-Key"]


def test_an_operation_that_ends_elsewhere_is_an_error(server, act):
    passing, failed = BOX | {"state": "pausing"}, BOX | {"error": "the disk is full"}
    server.answers = [(202, passing), (200, failed)]
    with pytest.raises(Error, match="is running, not paused: the disk is full"):
        act("pause", BOX["id"])


def test_destroy_is_done_when_it_is_gone(server, act):
    gone = {"error": {"code": "not_found", "message": "there is none"}}
    server.answers = [(202, b""), (200, BOX | {"state": "destroying"}), (404, gone)]
    assert act("destroy", BOX["id"]) is None


def test_a_list_of_several_pages_is_read_whole(server, act):
    server.answers = [
        (200, {"sandboxes": [BOX], "next_cursor": "c/1"}),
        (200, {"sandboxes": [BOX], "next_cursor": None}),
    ]
    assert len(act("list", state=["running", "paused"])) == 2
    assert server.asked[0][1] == "/v1/sandboxes?state=running%2Cpaused"
    assert server.asked[1][1].endswith("&cursor=c%2F1")


def test_names_are_one_segment_of_the_path(server, act):
    server.answers = [(204, b"")]
    act("delete_snapshot", "a/b c")
    assert server.asked[0][1] == "/v1/snapshots/a%2Fb%20c"


def test_a_file_s_bytes_pass_unchanged(server, act):
    server.answers = [(200, b"\0\xff"), (200, {"path": "/x", "size": 2})]
    assert act("read_file", "x", "/a b") == b"\0\xff"
    assert act("write_file", "x", "/x", b"\0\xff") == 2
    assert server.asked[0][1] == "/v1/sandboxes/x/files?path=%2Fa+b&user=root"
    assert server.asked[1][3] == b"\0\xff"


def test_no_server_is_unavailable():
    with (
        Client("http://127.0.0.1:1", "e2b_key") as client,
        pytest.raises(Unavailable, match=r"no server answers at http://127\.0\.0\.1:1"),
    ):
        client.hosts()


def test_a_flow_may_act_on_an_error(server):
    server.answers = [(404, {"error": {"code": "not_found", "message": "no"}})]

    def flow():
        try:
            yield calls.get("x")
        except NotFound:
            return "none"

    with Client(server.url, "e2b_key") as client:
        assert client.follow(flow()) == "none"


def test_both_clients_have_every_call_and_flow():
    described = {
        name
        for module in (calls, flows)
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
    }
    renamed = (described - {"listed", "create_snapshot"}) | {"list"}
    for client in (Client, AsyncClient):
        assert renamed <= set(vars(client))
        for name in renamed:
            assert vars(client)[name].__doc__ == _described(name).__doc__


def _described(name):
    name = "listed" if name == "list" else name
    return getattr(flows, name, None) or getattr(calls, name)
