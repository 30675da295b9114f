"""A guest's agent that lies, before the real host agent's code and the API: an error of ours, no
more; and everybody else is served.

The host is the fake one, but what is done inside sandboxes goes through the real agent's service,
whose guests all are one liar on a port of this machine.
"""

import contextlib
import json
import socket
import threading
from typing import Any, cast

import httpx
import pytest

from control_plane import make_settings, over
from fakes.host_agent import FakeHostAgent, serving, to_connect
from wrennd.core.errors import Error
from wrennd.host.agent.files import Files
from wrennd.host.agent.operations import Operations
from wrennd.host.agent.processes import Processes
from wrennd.host.agent.service import Parts, Service
from wrennd.host.agent.streams import Streams
from wrennd.host.envd_client import EnvdClient

MIB = 1 << 20
UNARY = (
    "exec",
    "start_background",
    "list_processes",
    "kill_process",
    "write_file",
    "list_directory",
    "make_directory",
    "remove_path",
    "stat_path",
)


class Liar:
    """Answers whatever it is asked with `lie`, again and again where `is_endless`."""

    def __init__(self):
        self.lie, self.is_endless = b"", False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]

    def serve(self):
        with self._server, contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                threading.Thread(target=self._answer, args=(sock,), daemon=True).start()

    def _answer(self, sock):
        with sock, contextlib.suppress(OSError):
            sock.settimeout(60)
            sock.recv(65536)
            sock.sendall(self.lie)
            while self.is_endless:
                sock.sendall(self.lie[-65536:])
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)


class Guests:
    """Every sandbox's is the liar."""

    def __init__(self, port):
        self._port = port

    @contextlib.contextmanager
    def using(self, _sandbox_id):
        yield EnvdClient("127.0.0.1", self._port)


class Host(FakeHostAgent):
    """In-memory, but for what is inside sandboxes."""

    def __init__(self, port):
        super().__init__()
        guests = cast(Any, Guests(port))
        nothing = cast(Any, None)
        self.service = Service(
            Parts(
                processes=Processes(guests),
                files=Files(guests),
                operations=Operations(),
                streams=Streams(),
                **dict.fromkeys(
                    (
                        "facts",
                        "catalogue",
                        "departures",
                        "admission",
                        "sandboxes",
                        "activity",
                        "measuring",
                    ),
                    nothing,
                ),
            )
        )

    async def read_file(self, request, ctx):
        try:
            async for message in self.service.read_file(request, ctx):
                yield message
        except Error as error:
            raise to_connect(error) from error


def through_the_service(name):
    async def call(self, request, ctx):
        try:
            return await getattr(self.service, name)(request, ctx)
        except Error as error:
            raise to_connect(error) from error

    return call


for each in UNARY:
    setattr(Host, each, through_the_service(each))


def answer(body, kind="application/json", status="200 OK", length=None):
    length = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + body


def stream(*events):
    body = b"".join(b"\0" + len(one).to_bytes(4, "big") + one for one in events)
    return answer(body, "application/connect+json", length=len(body) + 1000)


def event(**fields):
    return json.dumps({"event": fields}).encode()


CHUNKED = b"Transfer-Encoding: chunked"
START = event(start={"pid": 5})
LIES = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-x\r\n",
    "a head without end": (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 65536, True),
    "headers without end": (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 11000, True),
    "a long body": (answer(b"[" * 65536, length=1 << 62), True),
    "a negative length": answer(b"{}", length=-5),
    "a chunk too long": answer(b"f" * 16 + b"\r\nx").replace(b"Content-Length: 19", CHUNKED),
    "no JSON": answer(b"\xff\xfe{"),
    "a list": answer(b"[]"),
    "deep JSON": answer(b"[" * 200_000),
    "wrong types": answer(json.dumps({"entries": 5, "entry": [], "processes": {"a": 1}}).encode()),
    "strange entries": answer(
        json.dumps(
            {"entries": [{"name": 5, "size": "x", "type": -1}], "entry": {"size": 1 << 90}}
        ).encode()
    ),
    "strange processes": answer(b'{"processes": [{"pid": -1, "config": {"cmd": [1]}}]}'),
    "an unknown error": answer(
        json.dumps({"code": "evil", "message": "\0\x1b[2J" * MIB}).encode(), status="500 No"
    ),
    "an error that is a list": answer(b"[1]", status="404 No"),
    "a message too long": answer(b"\0\xff\xff\xff\xff", "application/connect+json", length=1 << 40),
    "an event before its start": stream(event(data={"stdout": "eA=="})),
    "a strange pid": stream(event(start={"pid": -(1 << 70)})),
    "data that is none": stream(START, event(data={"stdout": "%%%"})),
    "an end that is none": stream(START, event(end={"exitCode": 1 << 80})),
    "two starts": stream(START, START),
    "no end": stream(START),
}


@pytest.fixture(scope="module")
def liar():
    liar = Liar()
    thread = threading.Thread(target=liar.serve)
    thread.start()
    yield liar
    liar.close()
    thread.join()


@pytest.fixture(scope="module")
def server(liar, tmp_path_factory):
    settings = make_settings(tmp_path_factory.mktemp("hostile"), reconcile_s=1)
    agent = Host(liar.port)
    with serving(agent, settings.agent), over(agent, settings) as server:
        yield server


@pytest.fixture(scope="module")
def box(server):
    return server.create()


def requests(box):
    at = f"/v1/sandboxes/{box}"
    path = {"path": "/tmp/x"}
    yield "POST", f"{at}/exec", {"json": {"cmd": "true", "timeout_sec": 5}}
    yield "POST", f"{at}/exec", {"json": {"cmd": "true", "background": True}}
    yield "GET", f"{at}/processes", {}
    yield "DELETE", f"{at}/processes/5", {}
    yield "PUT", f"{at}/files", {"params": path, "content": b"x" * 1000}
    yield "GET", f"{at}/files", {"params": path}
    for route in ("list", "stat", "mkdir", "remove"):
        yield "POST", f"{at}/files/{route}", {"json": path}


def status_of(server, method, path, wanted):
    """And that what is told of a failure is in our form, and short."""
    with server.api.stream(method, path, **wanted) as told:
        if told.status_code < 400:
            with contextlib.suppress(httpx.RemoteProtocolError):  # a download may be cut
                for _ in zip(told.iter_bytes(65536), range(100), strict=False):
                    pass
            return told.status_code
        error = json.loads(told.read())["error"]
        assert len(error["message"]) < 4096
        assert error["code"] != "internal", error
        return told.status_code


@pytest.mark.parametrize("lie", LIES)
def test_a_lie(server, box, liar, lie):
    said = LIES[lie]
    liar.lie, liar.is_endless = said if isinstance(said, tuple) else (said, False)
    for method, path, wanted in requests(box):
        status = status_of(server, method, path, wanted)
        # Some lies are fit for some questions: an empty object is a fine answer to a removal.
        assert status < 500 or status in (502, 503, 504), (method, path, status)
    assert server.state(box) == "running"
