"""The proxy, served by uvicorn, before servers that stand for what runs in a sandbox."""

import contextlib
import http.client
import json
import queue
import socket
import threading

import pytest
import uvicorn
import websockets.sync.client
import websockets.sync.server
from websockets.exceptions import ConnectionClosed, InvalidStatus

from wrennd.control.edge import Edge
from wrennd.control.edge_streams import EdgeProtocol

BOX, NO_BOX = "a" * 20, "b" * 20
TIMEOUT_S = 30


class Backend:
    def __init__(self):
        self.touched = queue.SimpleQueue()

    async def find_address(self, sandbox_id):
        return "127.0.0.1" if sandbox_id == BOX else ""

    def touch(self, sandbox_id):
        self.touched.put(sandbox_id)


async def own(scope, receive, send):
    """The application behind the proxy."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the server's own"})


class Served:
    """The proxy at `port`; `cut` is called in its loop."""

    def __init__(self):
        self.backend = Backend()
        self.edge = Edge(own, self.backend, "sandbox.test")
        config = uvicorn.Config(
            self.edge,
            http=EdgeProtocol,
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self.server = uvicorn.Server(config)
        self.bound = socket.create_server(("127.0.0.1", 0))
        self.port = self.bound.getsockname()[1]
        self.loop = None

    async def _serve(self):
        import asyncio

        self.loop = asyncio.get_running_loop()
        await self.server.serve([self.bound])

    def run(self):
        import asyncio

        asyncio.run(self._serve())

    def cut(self, sandbox_id):
        self.loop.call_soon_threadsafe(self.edge.cut, sandbox_id)


@pytest.fixture(scope="module")
def served():
    found = Served()
    thread = threading.Thread(target=found.run)
    thread.start()
    yield found
    found.server.should_exit = True
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


@pytest.fixture
def port():
    """A server of the test's: it is given the connection as a socket."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(TIMEOUT_S)
        accepted = queue.SimpleQueue()

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.settimeout(TIMEOUT_S)
                    accepted.put(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        number = listener.getsockname()[1]
        yield number, lambda: held.enter_context(accepted.get(timeout=TIMEOUT_S))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(TIMEOUT_S)


def name_of(port, box=BOX):
    return f"{port}-{box}.sandbox.test"


@contextlib.contextmanager
def client(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=TIMEOUT_S)
    try:
        yield connection
    finally:
        connection.close()


def until(connection, end):
    got = b""
    while not got.endswith(end):
        piece = connection.recv(65536)
        assert piece, f"ended after {got!r}"
        got += piece
    return got


def test_what_is_for_no_sandbox_is_the_server_s(served):
    with client(served) as to_server:
        to_server.request("GET", "/test")
        assert to_server.getresponse().read() == b"the server's own"


def test_a_request_and_its_response_pass(served, port):
    number, accepted = port
    with client(served) as to_server:
        to_server.request(
            "POST",
            "/a%2Fb?c=d",
            body=b"in",
            headers={"Host": name_of(number), "X-API-Key": "e2b_1", "X-Mine": "yes"},
        )
        at_port = accepted()
        head = until(at_port, b"\r\n\r\nin").decode().lower()
        assert head.startswith("post /a%2fb?c=d http/1.1\r\n")
        assert "x-mine: yes" in head
        assert "e2b_1" not in head
        assert f"host: {name_of(number)}" in head
        at_port.sendall(b"HTTP/1.1 201 Created\r\nX-Theirs: 1\r\nContent-Length: 3\r\n\r\nout")
        answer = to_server.getresponse()
        assert (answer.status, answer.getheader("X-Theirs"), answer.read()) == (201, "1", b"out")
    assert served.backend.touched.get(timeout=TIMEOUT_S) == BOX


@pytest.mark.parametrize(
    ("method", "answered"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.0 200 OK\r\n\r\n"),
    ],
    ids=["HEAD", "304", "100 before", "HTTP/1.0"],
)
def test_responses_without_a_body_leave_the_connection_usable(served, port, method, answered):
    number, accepted = port
    with client(served) as to_server:
        for _ in range(2):
            to_server.request(method, "/", headers={"Host": name_of(number)})
            with accepted() as at_port:
                until(at_port, b"\r\n\r\n")
                at_port.sendall(answered)
            assert to_server.getresponse().read() == b""


def test_a_body_that_waits_to_be_asked_for(served, port):
    number, accepted = port
    with socket.create_connection(("127.0.0.1", served.port), timeout=TIMEOUT_S) as raw:
        head = f"PUT / HTTP/1.1\r\nHost: {name_of(number)}\r\nContent-Length: 4\r\n"
        raw.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        at_port = accepted()
        until(raw, b"HTTP/1.1 100 Continue\r\n\r\n")
        raw.sendall(b"body")
        until(at_port, b"\r\n\r\nbody")


def test_both_bodies_pass_piece_by_piece(served, port):
    number, accepted = port
    with client(served) as to_server:
        to_server.putrequest("POST", "/", skip_host=True)
        to_server.putheader("Host", name_of(number))
        to_server.putheader("Transfer-Encoding", "chunked")
        to_server.endheaders()
        to_server.send(b"1\r\na\r\n")
        at_port = accepted()
        until(at_port, b"1\r\na\r\n")  # before there is more
        at_port.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        answer = to_server.getresponse()  # before the request has ended
        assert answer.read(1) == b"x"
        to_server.send(b"1\r\nb\r\n0\r\n\r\n")
        until(at_port, b"1\r\nb\r\n0\r\n\r\n")
        at_port.sendall(b"1\r\ny\r\n0\r\n\r\n")
        assert answer.read() == b"y"


def test_a_client_that_leaves_takes_its_connection_with_it(served, port):
    number, accepted = port
    with client(served) as to_server:
        to_server.request("GET", "/", headers={"Host": name_of(number)})
        at_port = accepted()
        until(at_port, b"\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert at_port.recv(1) == b""


def test_a_response_that_breaks_off_does_not_look_whole(served, port):
    number, accepted = port
    with client(served) as to_server:
        to_server.request("GET", "/", headers={"Host": name_of(number)})
        at_port = accepted()
        until(at_port, b"\r\n\r\n")
        at_port.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        at_port.close()
        answer = to_server.getresponse()
        with pytest.raises((ConnectionError, http.client.IncompleteRead)):
            answer.read()


def test_a_killed_sandbox_s_stream_is_reset(served, port):
    number, accepted = port
    with client(served) as to_server:
        to_server.request("GET", "/", headers={"Host": name_of(number)})
        at_port = accepted()
        until(at_port, b"\r\n\r\n")
        at_port.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        answer = to_server.getresponse()
        assert answer.read(1) == b"x"
        served.cut(BOX)
        with pytest.raises(ConnectionResetError):
            answer.read()


def test_a_killed_sandbox_s_request_without_an_answer_yet_is_told(served, port):
    number, accepted = port
    with client(served) as to_server:
        to_server.request("GET", "/", headers={"Host": name_of(number)})
        until(accepted(), b"\r\n\r\n")
        served.cut(BOX)
        assert to_server.getresponse().status == 502


def asked(served, host, path="/", **headers):
    with client(served) as to_server:
        to_server.request("GET", path, headers={"Host": host} | headers)
        answer = to_server.getresponse()
        return answer.status, answer.read()


def test_no_such_sandbox(served):
    status, said = asked(served, name_of(80, NO_BOX))
    assert status == 502
    assert json.loads(said) == {
        "sandboxId": NO_BOX,
        "message": "The sandbox was not found",
        "code": 502,
    }


def test_a_closed_port(served):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
    status, said = asked(served, name_of(number))
    assert status == 502
    assert json.loads(said) == {
        "sandboxId": BOX,
        "message": "The sandbox is running but port is not open",
        "port": number,
        "code": 502,
    }


def test_a_port_that_speaks_no_http(served, port):
    number, accepted = port
    with client(served) as to_server:
        to_server.request("GET", "/", headers={"Host": name_of(number)})
        at_port = accepted()
        until(at_port, b"\r\n\r\n")
        at_port.sendall(b"SSH-2.0-server\r\n\r\n")
        assert to_server.getresponse().status == 504


def test_the_guest_agent_s_control_routes_are_not_there_even_where_there_is_no_sandbox(served):
    for box in (BOX, NO_BOX):
        status, said = asked(served, name_of(49983, box), "/init")
        assert status == 404
        assert json.loads(said)["path"] == "/init"


def test_a_name_that_leads_nowhere(served):
    assert asked(served, "nowhere.sandbox.test")[0] == 400


def test_headers_lead_to_a_port_as_well(served, port):
    number, accepted = port
    with client(served) as to_server:
        wanted = {"E2b-Sandbox-Id": BOX, "E2b-Sandbox-Port": str(number)}
        to_server.request("GET", "/", headers=wanted)
        at_port = accepted()
        assert b"e2b-sandbox" not in until(at_port, b"\r\n\r\n").lower()
        at_port.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert to_server.getresponse().status == 204


@pytest.fixture
def echo():
    """A WebSocket server that answers each message with itself; "bye" ends it."""

    def handle(connection):
        for message in connection:
            if message == "bye":
                connection.close(4001, "as you wish")
                return
            connection.send(message)

    def refuse(connection, request):
        if request.path == "/no":
            return connection.respond(403, "no")
        return None

    with websockets.sync.server.serve(
        handle, "127.0.0.1", 0, process_request=refuse, subprotocols=["echo"]
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join(TIMEOUT_S)


@contextlib.contextmanager
def websocket(served, number, path="/", box=BOX):
    with websockets.sync.client.connect(
        f"ws://{name_of(number, box)}{path}",
        sock=socket.create_connection(("127.0.0.1", served.port)),
        subprotocols=["echo"],
        proxy=None,
    ) as found:
        yield found


def test_a_websocket_passes_both_ways(served, echo):
    with websocket(served, echo) as found:
        assert found.subprotocol == "echo"
        for message in ("text", b"\0\xff", "x" * 100_000):
            found.send(message)
            assert found.recv(timeout=TIMEOUT_S) == message
        found.send("bye")
        with pytest.raises(ConnectionClosed) as closed:
            found.recv(timeout=TIMEOUT_S)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you wish")


def test_a_killed_sandbox_s_websocket_is_reset(served, echo):
    with websocket(served, echo) as found:
        found.send("one")
        found.recv(timeout=TIMEOUT_S)
        served.cut(BOX)
        with pytest.raises(ConnectionClosed) as closed:
            found.recv(timeout=TIMEOUT_S)
        assert closed.value.rcvd is None


@pytest.mark.parametrize(
    ("path", "box", "status"), [("/no", BOX, 403), ("/", NO_BOX, 502)], ids=["refused", "no box"]
)
def test_a_websocket_that_is_refused_says_why(served, echo, path, box, status):
    with pytest.raises(InvalidStatus) as refused, websocket(served, echo, path, box):
        pass
    assert refused.value.response.status_code == status
