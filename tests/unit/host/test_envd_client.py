"""The agent's client against sockets that misbehave; the real agent is in the contract suite."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import pytest

import ports
from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded, GuestFailed, InvalidInput, NoCapacity, VmmFailed
from wrennd.core.model import Command
from wrennd.host.envd_client import EnvdClient, Orders, _repeat
from wrennd.host.envd_wire import MAX_REPLY_BYTES, Peer

TRUE = Command(argv=("true",))


@contextmanager
def listening(*replies: bytes):
    """A port that gives one of the replies to each connection, and afterwards says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = list(replies)

        def serve() -> None:
            held = []
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    break
                held.append(sock)
                if left and sock.recv(65536):
                    # Who has read enough closes.
                    with suppress(ConnectionError):
                        sock.sendall(left.pop(0))
                    held.pop().close()
            for sock in held:
                sock.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def vmm():
    """A process whose death is to be noticed, and its pidfd."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as popen:
        pidfd = os.pidfd_open(popen.pid)
        try:
            yield popen, pidfd
        finally:
            popen.kill()
            os.close(pidfd)


@pytest.fixture
def free_port():
    return ports.free_port()


def test_nobody_there_until_the_deadline(free_port):
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=f"127.0.0.1:{free_port}"):
        EnvdClient("127.0.0.1", free_port).wait_ready(Deadline.after(0.1))
    assert time.monotonic() - started < 20


def test_somebody_who_never_answers(free_port):
    with listening() as port, pytest.raises(DeadlineExceeded):
        EnvdClient("127.0.0.1", port).wait_ready(Deadline.after(0.1))


def test_an_agent_that_comes_late_is_found_at_once(free_port):
    found = []

    def wait() -> None:
        EnvdClient("127.0.0.1", free_port).wait_ready(Deadline.after(20))
        found.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.15)
    assert thread.is_alive()
    with socket.create_server(("127.0.0.1", free_port)) as server:
        came = time.monotonic()
        sock, _ = server.accept()
        with sock:
            assert sock.recv(65536).startswith(b"GET /health HTTP/1.1\r\n")
            sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            thread.join()
    assert found[0] - came < 10, "it knocks many times a second"


def test_a_slow_agent_is_given_more_time_with_each_attempt(counted):
    port, accepted = counted
    with pytest.raises(DeadlineExceeded):
        _repeat(
            Peer(address="127.0.0.1", port=port),
            Deadline.after(0.5),
            lambda: ("GET", "/health", {}, None),
            attempt_s=0.01,
        )
    # 0.01 + 0.02 + ... + 0.32 s; with 0.01 s each there would be dozens.
    assert 1 <= len(accepted) <= 7


@pytest.fixture
def counted():
    """A port that never says anything, and the connections that it got."""
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    accepted.append(server.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1], accepted
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for sock in accepted:
                sock.close()


def test_connections_that_break_are_tried_again():
    fine = b"HTTP/1.1 204 No Content\r\n\r\n"
    with listening(b"", b"", fine) as port:
        EnvdClient("127.0.0.1", port).wait_ready(Deadline.after(20))


@pytest.mark.parametrize(
    "reply", [b"SSH-2.0-x\r\n", b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]
)
def test_somebody_else_is_told_from_the_agent(reply):
    with listening(reply) as port, pytest.raises(GuestFailed):
        EnvdClient("127.0.0.1", port).wait_ready(Deadline.after(20))


@pytest.mark.parametrize("where", ["knocking", "waiting"])
def test_the_vmm_s_death_ends_the_wait_at_once(where, free_port):
    with vmm() as (popen, pidfd), listening() as silent_port:
        port = free_port if where == "knocking" else silent_port
        timer = threading.Timer(0.1, popen.kill)
        timer.start()
        started = time.monotonic()
        with pytest.raises(VmmFailed):
            EnvdClient("127.0.0.1", port).wait_ready(Deadline.after(60), pidfd)
        assert time.monotonic() - started < 30
        timer.join()


def test_the_vmm_s_death_ends_a_call(free_port):
    with vmm() as (popen, pidfd), listening() as port:
        timer = threading.Timer(0.1, popen.kill)
        timer.start()
        client = EnvdClient("127.0.0.1", port, vmm_pidfd=pidfd)
        with pytest.raises(VmmFailed), client.start(TRUE):
            pass
        timer.join()


def test_an_agent_that_is_gone_is_no_reason_to_wait(free_port):
    client = EnvdClient("127.0.0.1", free_port)
    with pytest.raises(GuestFailed, match="can't be reached any more"), client.start(TRUE):
        pass


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/connect+json\r\nConnection: close\r\n\r\n"


def envelope(text: bytes, flags: int = 0) -> bytes:
    return bytes((flags,)) + len(text).to_bytes(4, "big") + text


STARTED = envelope(b'{"event":{"start":{"pid":7}}}')


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"nonsense\r\n\r\n",
        HEAD,
        HEAD + envelope(b"{}", 2),
        HEAD + envelope(b"{]"),
        HEAD + envelope(b'{"event":{"data":{"stdout":"aGkK"}}}'),
        HEAD + envelope(b'{"error":{"code":"internal","message":"x"}}', 2),
        HEAD + envelope(b'{"error":{"code":"what","message":"x"}}', 2),
        HEAD.replace(b"connect+json", b"json") + b"{}",
        b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_an_agent_that_misbehaves_at_the_start(reply):
    with listening(reply) as port:
        client = EnvdClient("127.0.0.1", port)
        with pytest.raises(GuestFailed), client.start(TRUE):
            pass


@pytest.mark.parametrize("rest", [b"", b"\0\0", envelope(b"{}", 2), envelope(b"{]")])
def test_an_agent_that_breaks_off(rest):
    with (
        listening(HEAD + STARTED + rest) as port,
        EnvdClient("127.0.0.1", port).start(TRUE) as started,
    ):
        assert started.pid == 7
        with pytest.raises(GuestFailed):
            list(started.events())


@pytest.mark.parametrize(
    ("status", "error"), [(400, InvalidInput), (507, NoCapacity), (500, GuestFailed)]
)
def test_refusals_of_plain_requests_are_sorted_by_status(status, error):
    body = json.dumps({"code": status, "message": "the agent's words"}).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with listening(head + body) as port, pytest.raises(error, match="the agent's words"):
        EnvdClient("127.0.0.1", port).init(token="t")


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b'"x"', b"null", b"{", b"\xff", b"[" * 100_000, b'{"hooks":[1]}']
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.init(token="t", restored=True),
        lambda client: client.freeze(1),
        lambda client: client.metrics(),
        lambda client: client.unfreeze(),
    ],
    ids=["init", "freeze", "metrics", "unfreeze"],
)
def test_an_answer_that_makes_no_sense_is_the_guest_s_failure(ask, body):
    with listening(answer(body)) as port:
        client = EnvdClient("127.0.0.1", port)
        with pytest.raises(GuestFailed):
            ask(client)


def test_a_reply_without_end_is_not_taken_in():
    head = b"HTTP/1.1 200 X\r\n\r\n"
    with (
        listening(head + b" " * (MAX_REPLY_BYTES + 2)) as port,
        pytest.raises(GuestFailed, match="more than"),
    ):
        EnvdClient("127.0.0.1", port).metrics()


def test_orders_are_made_anew_for_each_attempt():
    orders = Orders(token="t", env={"A": "1"})
    one, other = json.loads(orders.to_json()), json.loads(orders.to_json())
    assert one["entropy"] != other["entropy"]
    assert one["timestamp"] <= other["timestamp"]
    assert (one["accessToken"], one["envVars"]) == ("t", {"A": "1"})
    assert "defaultUser" not in one


def test_the_import_is_cheap_until_it_is_needed():
    code = "import sys, wrennd.host.envd_client; print('connectrpc' in sys.modules)"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "False\n"
