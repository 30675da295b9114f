"""Clients that vanish, are slow, or read nothing: what they held is let go; others are served."""

import concurrent.futures
import contextlib
import json
import select
import socket
import struct

import httpx
import pytest

from control_plane import control_plane
from fakes.host_agent import ENDLESS
from wrennd.control.settings import Bounds
from wrennd.core.deadline import Deadline

LINGER_NONE = struct.pack("ii", 1, 0)
# Short, where a test waits for them to pass; of the rest no test waits for the end.
SHORT = Bounds(answer_s=60, auth_frame_s=60, head_s=3, body_s=1, taken_s=1, ping_s=1)
PATIENT = Bounds(
    answer_s=60, auth_frame_s=60, head_s=60, body_s=60, taken_s=600, ping_s=600, last_s=1
)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    with control_plane(tmp_path_factory.mktemp("own"), bounds=SHORT, reconcile_s=1) as server:
        yield server


@pytest.fixture(scope="module")
def box(own):
    return own.create()


def until(look, what):
    deadline = Deadline.after(120)
    while not look():
        deadline.check(what)
        select.select([], [], [], 0.02)


@contextlib.contextmanager
def connected(server):
    url = httpx.URL(server.url)
    with socket.socket() as raw:
        # Little is on its way: who reads nothing is waited for soon.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(120)
        raw.connect((url.host, url.port))
        yield raw


def head(server, method, path, *lines):
    said = [f"{method} {path} HTTP/1.1", "Host: wrenn", f"X-API-Key: {server.key}", *lines, "", ""]
    return "\r\n".join(said).encode()


def reset(raw):
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
    raw.close()


def rest(raw):
    """What comes until the server ends the connection; which it may do by a reset."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := raw.recv(65536):
            found += data
    return found


def frame(data):
    """A client's text frame; its mask is zeros."""
    length = len(data)
    size = struct.pack("!B", 0x80 | length) if length < 126 else struct.pack("!BH", 0xFE, length)
    return b"\x81" + size + bytes(4) + data


def start_of(*argv):
    return frame(json.dumps({"type": "start", "cmd": argv[0], "args": argv[1:]}).encode())


@contextlib.contextmanager
def socket_open(server, box):
    """A WebSocket, byte by byte."""
    upgrade = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    with connected(server) as raw:
        raw.sendall(head(server, "GET", f"/v1/sandboxes/{box}/exec/stream", *upgrade))
        assert raw.recv(12) == b"HTTP/1.1 101"
        yield raw


@contextlib.contextmanager
def socket_of(server, box, *argv):
    """One in which a command runs; and the command."""
    guest = server.agent.boxes[box].guest
    before = set(guest.processes)
    with socket_open(server, box) as raw:
        raw.sendall(start_of(*argv))
        until(lambda: set(guest.processes) - before, "the command's start")
        (pid,) = set(guest.processes) - before
        yield raw, guest.processes[pid]


def is_let_go(server, process):
    """The command was killed, and nothing of the server is about it any more."""
    shown = server.anonymous.get("/metrics").text
    return (
        process.exit_code == 137
        and server.agent.open["exec_stream"] == 0
        and "wrenn_websockets 0.0" in shown
    )


@pytest.mark.parametrize("how", ["reset", "fin", "half a frame", "silence"])
def test_a_websocket_s_client_vanishes(own, box, how):
    with socket_of(own, box, "sleep", "999") as (raw, process):
        match how:
            case "reset":
                reset(raw)
            case "fin":
                raw.shutdown(socket.SHUT_WR)
            case "half a frame":
                raw.sendall(start_of("x" * 100)[:50])
        until(lambda: is_let_go(own, process), "the end of what it held")


def test_a_websocket_s_client_reads_nothing(own, box):
    with socket_of(own, box, "yes") as (_, process):
        until(lambda: is_let_go(own, process), "the end of what it held")


def test_a_message_that_is_too_long(own, box):
    with socket_of(own, box, "sleep", "999") as (raw, process):
        raw.sendall(b"\x81\xff" + struct.pack("!Q", 1 << 40) + bytes(4))
        assert struct.pack("!BBH", 0x88, 2, 1009)[2:] in rest(raw)
        until(lambda: is_let_go(own, process), "the end of what it held")


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """One that would wait longer than the test for all that is slow."""
    with control_plane(tmp_path_factory.mktemp("patient"), bounds=PATIENT, reconcile_s=1) as server:
        yield server


def test_a_revoked_key_s_stream_ends_also_when_nobody_reads(patient):
    box = patient.create()
    as_its_owner, revoke = with_a_key(patient)
    with socket_of(as_its_owner, box, "yes") as (raw, process):
        until(lambda: process.followers[0].qsize() >= 16, "a stream that is full")
        revoke()
        until(lambda: is_let_go(patient, process), "the end of what it held")
        rest(raw)


def with_a_key(server):
    """The server as another of its keys' owner sees it; and what revokes that key."""
    made = server.api.post("/v1/keys", json={"name": "short"}).json()

    def revoke():
        assert server.api.delete(f"/v1/keys/{made['id']}").status_code == 204

    return type(server)(**{**vars(server), "key": made["key"]}), revoke


@pytest.mark.parametrize("is_read", [True, False])
def test_a_revoked_key_s_download_is_cut(patient, is_read):
    box = patient.create()
    as_its_owner, revoke = with_a_key(patient)
    with connected(as_its_owner) as raw:
        raw.sendall(head(as_its_owner, "GET", f"/v1/sandboxes/{box}/files?path={ENDLESS}"))
        assert raw.recv(12) == b"HTTP/1.1 200"
        revoke()
        if is_read:
            assert not rest(raw).endswith(b"0\r\n\r\n")  # it does not look whole
        until(lambda: patient.agent.open["read_file"] == 0, "the download's end")


def test_a_revoked_key_s_upload_leaves_nothing(patient):
    box = patient.create()
    at = f"/v1/sandboxes/{box}/files"
    as_its_owner, revoke = with_a_key(patient)
    with connected(as_its_owner) as raw:
        announced = "Content-Length: 1000000"
        raw.sendall(head(as_its_owner, "PUT", f"{at}?path=/tmp/half", announced))
        raw.sendall(b"x" * 1000)
        until(lambda: patient.agent.open["write_file"] == 1, "the upload's begin")
        revoke()
        assert rest(raw).startswith(b"HTTP/1.1 401")
    until(lambda: patient.agent.open["write_file"] == 0, "the upload's end")
    assert patient.api.get(at, params={"path": "/tmp/half"}).status_code == 404


def test_a_revoked_key_s_command_is_answered(patient):
    box = patient.create()
    as_its_owner, revoke = with_a_key(patient)
    body = json.dumps({"cmd": "sleep", "args": ["999"], "timeout_sec": 999}).encode()
    with connected(as_its_owner) as raw:
        raw.sendall(
            head(
                as_its_owner,
                "POST",
                f"/v1/sandboxes/{box}/exec",
                "Content-Type: application/json",
                f"Content-Length: {len(body)}",
                "Connection: close",
            )
            + body
        )
        until(lambda: patient.agent.boxes[box].guest.processes, "the command's start")
        revoke()
        answer = rest(raw)
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"this API key was revoked" in answer


def test_who_revokes_his_own_key_is_told_so(patient):
    as_its_owner, _ = with_a_key(patient)
    headers = {"X-API-Key": as_its_owner.key}
    keys = patient.api.get("/v1/keys").json()["keys"]
    own = next(each["id"] for each in keys if as_its_owner.key.startswith(each["prefix"]))
    done = httpx.delete(f"{patient.url}/v1/keys/{own}", headers=headers, timeout=60)
    assert done.status_code == 204


def test_a_stream_that_nobody_reads_ends_with_its_sandbox(patient):
    box = patient.create()
    with socket_of(patient, box, "yes") as (raw, process):
        until(lambda: process.followers[0].qsize() >= 16, "a stream that is full")
        patient.api.delete(f"/v1/sandboxes/{box}")
        until(lambda: is_let_go(patient, process), "the end of what it held")
        rest(raw)


def test_a_download_that_nobody_reads_ends_with_its_sandbox(patient):
    box = patient.create()
    with connected(patient) as raw:
        raw.sendall(head(patient, "GET", f"/v1/sandboxes/{box}/files?path={ENDLESS}"))
        assert raw.recv(12) == b"HTTP/1.1 200"
        patient.api.delete(f"/v1/sandboxes/{box}")
        until(lambda: patient.agent.open["read_file"] == 0, "the download's end")
        rest(raw)


def test_heads_that_never_end(own):
    """A hundred of them: each is closed in time, and others are served meanwhile."""
    with contextlib.ExitStack() as held:
        slow = [held.enter_context(connected(own)) for _ in range(100)]
        for number, raw in enumerate(slow):
            raw.sendall(head(own, "GET", "/v1/sandboxes")[: number % 60])
        assert own.api.get("/v1/sandboxes").status_code == 200
        for raw in slow:
            assert rest(raw) == b""


def test_a_head_that_trickles(own):
    with connected(own) as raw, contextlib.suppress(ConnectionError):
        raw.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        deadline = Deadline.after(120)
        while not select.select([raw], [], [], 0.1)[0]:
            raw.sendall(b"x")
            deadline.check("the end of a slow connection")
        assert rest(raw) == b""


def test_a_second_request_s_head_that_never_ends(own):
    with connected(own) as raw:
        raw.sendall(head(own, "GET", "/v1/sandboxes"))
        assert raw.recv(12) == b"HTTP/1.1 200"
        raw.sendall(b"GET / HT")
        rest(raw)


@pytest.mark.parametrize("how", ["stops", "trickles"])
def test_a_body_that_does_not_arrive(own, how):
    with connected(own) as raw:
        raw.sendall(head(own, "POST", "/v1/sandboxes", "Content-Length: 100000") + b'{"vcpus":')
        deadline = Deadline.after(120)
        while how == "trickles" and not select.select([raw], [], [], 0.1)[0]:
            raw.sendall(b" ")
            deadline.check("the end of a slow request")
        answer = rest(raw)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"request_timeout" in answer


def test_an_upload_that_breaks_off_leaves_nothing(own, box):
    at = f"/v1/sandboxes/{box}/files"
    with connected(own) as raw:
        raw.sendall(head(own, "PUT", f"{at}?path=/tmp/half", "Content-Length: 1000000"))
        raw.sendall(b"x" * 500_000)
        until(lambda: own.agent.open["write_file"] == 1, "the upload's begin")
        reset(raw)
    until(lambda: own.agent.open["write_file"] == 0, "the upload's end")
    assert own.api.get(at, params={"path": "/tmp/half"}).status_code == 404


@pytest.mark.parametrize("how", ["vanishes", "reads nothing"])
def test_a_download_whose_client(own, box, how):
    with connected(own) as raw:
        raw.sendall(head(own, "GET", f"/v1/sandboxes/{box}/files?path={ENDLESS}"))
        assert raw.recv(12) == b"HTTP/1.1 200"
        assert own.agent.open["read_file"] == 1
        if how == "vanishes":
            reset(raw)
        until(lambda: own.agent.open["read_file"] == 0, "the download's end")


def test_events_whose_client_vanishes(own):
    with connected(own) as raw:
        raw.sendall(head(own, "GET", "/v1/events/stream"))
        assert raw.recv(12) == b"HTTP/1.1 200"
        until(lambda: own.services.bus.count == 1, "a listener")
        reset(raw)
    until(lambda: own.services.bus.count == 0, "its end")


def test_many_that_vanish_at_once(own, box):
    """Whatever they were doing; everything is let go."""
    guest = own.agent.boxes[box].guest

    def come_and_go(number):
        with socket_open(own, box) as raw:
            if number % 2:
                raw.sendall(start_of("yes"))
            reset(raw)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(40)))
    until(lambda: own.agent.open["exec_stream"] == 0, "the end of all streams")
    until(lambda: not guest.processes, "the end of all commands")
