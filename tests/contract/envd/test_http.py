"""Routes, errors and connections, down to the bytes."""

import json
import socket

import pytest

from envd_agent import STREAM


def replies(sock: socket.socket) -> bytes:
    """Everything until the agent closes."""
    data = b""
    while part := sock.recv(65536):
        data += part
    return data


def test_health(agent):
    status, headers, body = agent.http("GET", "/health")
    assert (status, body) == (204, b"")
    assert headers["x-envd-version"] == "0.6.13"
    assert headers["access-control-allow-origin"] == "*"


def test_an_unknown_route_is_404(agent):
    for target in ("/", "/nope", "/process.Nope/Start", "/process.Process.Start"):
        status, headers, body = agent.http("GET", target)
        assert (status, headers["content-type"]) == (404, "application/json")
        assert json.loads(body)["code"] == 404


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("POST", "/health", "GET"),
        ("GET", "/init", "POST"),
        ("DELETE", "/files?path=x", "GET, POST"),
        ("GET", "/process.Process/Start", "POST"),
    ],
)
def test_a_wrong_method_is_405(agent, method, target, allowed):
    status, headers, body = agent.http(method, target)
    assert (status, headers["allow"]) == (405, allowed)
    assert json.loads(body)["code"] == 405


def test_what_is_not_implemented_says_so(agent):
    for service, method in (("process.Process", "Nope"), ("filesystem.Filesystem", "Nope")):
        status, body = agent.rpc(method, {}, service=service)
        assert (status, body["code"]) == (501, "unimplemented")
    stream = agent.stream("Nope", {}).rest()
    assert stream.error["code"] == "unimplemented"


def test_a_reply_to_head_has_no_body(agent):
    with agent.socket() as sock:
        sock.sendall(b"HEAD /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        head, _, body = replies(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert body == b""


def test_preflight(agent):
    status, headers, _ = agent.http("OPTIONS", "/process.Process/Start")
    assert status == 204
    assert headers["access-control-allow-headers"] == "*"
    assert "POST" in headers["access-control-allow-methods"]


def test_content_types(agent):
    body = b"\0\0\0\0\x02{}"
    for method, kind in (("Start", "application/json"), ("List", STREAM), ("Start", "text/plain")):
        status, _, reply = agent.http(
            "POST", f"/process.Process/{method}", body, {"Content-Type": kind}
        )
        assert (status, json.loads(reply)["code"]) == (415, 415)
    charset = {"Content-Type": "application/json; charset=utf-8"}
    assert agent.http("POST", "/process.Process/List", b"{}", charset)[0] == 200


def test_keep_alive_and_pipelining(agent):
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with agent.socket() as sock:
        sock.sendall(request * 49 + request.replace(b"Host: x", b"Connection: close"))
        data = replies(sock)
    assert data.count(b"HTTP/1.1 204 No Content\r\n") == 50
    assert data.count(b"Connection: close") == 1


def test_http_1_0_gets_a_body_that_ends_with_the_connection(agent):
    message = b'{"process":{"cmd":"echo","args":["hi"]}}'
    body = b"\0" + len(message).to_bytes(4, "big") + message
    head = f"POST /process.Process/Start HTTP/1.0\r\nContent-Type: {STREAM}\r\n"
    with agent.socket() as sock:
        sock.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        data = replies(sock)
    assert b"Transfer-Encoding" not in data
    assert b'{"event":{"data":{"stdout":"aGkK"}}}' in data
    assert data.endswith(b"\x02\0\0\0\x02{}")


def test_a_request_may_come_byte_by_byte(agent):
    with agent.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = (
            b"POST /process.Process/List HTTP/1.1\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
        )
        for byte in request:
            sock.sendall(bytes((byte,)))
        data = replies(sock)
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'{"processes":' in data


def test_expect_continue(agent):
    with agent.socket() as sock:
        sock.sendall(
            b"POST /process.Process/List HTTP/1.1\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
        )
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"{}")
        assert replies(sock).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_only_half_closes_gets_its_reply(agent):
    with agent.socket() as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert replies(sock).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\r\n\r\nnonsense\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\n\r\n", 505),
        (b"GET / SPDY\r\n\r\n", 400),
        (b"G@T / HTTP/1.1\r\n\r\n", 400),
        (b"GET no-slash HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400),
        (b"POST /init HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /init HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", 400),
        (b"POST /init HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        (b"POST /init HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /init HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /init HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST /init HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /init HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (b"POST /init HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n", 400),
        (b"POST /init HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 5000, 400),
        (b"GET /" + b"a" * 70_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", 431),
    ],
)
def test_broken_requests_are_refused_and_the_connection_closed(agent, request_bytes, status):
    with agent.socket() as sock:
        sock.sendall(request_bytes)
        reply = replies(sock)
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close" in head
    assert json.loads(body)["code"] == status
    assert agent.is_alive()


def test_an_endless_body_is_cut_off(agent):
    head = b"POST /process.Process/List HTTP/1.1\r\nContent-Type: application/json\r\n"
    with agent.socket() as sock:
        sock.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(OSError, match=r"pipe|reset"):  # noqa: PT012 - it may be any of many
            for _ in range(10_000):
                sock.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
    assert agent.is_alive()


def test_an_oversized_message_is_told_so(agent):
    status, body = agent.rpc("List", {"x": "y" * (4 << 20)})
    assert (status, body["code"]) == (429, "resource_exhausted")


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        (b"", "invalid_argument"),
        (b"\0\0\0\0", "invalid_argument"),
        (b"\0\0\0\0\x05{}", "invalid_argument"),
        (b"\0\xff\xff\xff\xff{}", "resource_exhausted"),
        (b"\x01\0\0\0\x02{}", "unimplemented"),
        (b"\x80\0\0\0\x02{}", "invalid_argument"),
        (b"\0\0\0\0\x02{]", "invalid_argument"),
        (b"\0\0\0\0\x02[]", "invalid_argument"),
        (b"\0\0\0\0\x02\xff\xff", "invalid_argument"),
        (b"\0\0\0\0\x02{}\0\0\0\0\x02{}", "invalid_argument"),
        (b"\0\0\0\x03\xe8" + b"[" * 1000, "invalid_argument"),
        (b"\0\0\x01\x86\xa0" + b"[" * 100_000, "invalid_argument"),
    ],
)
def test_broken_envelopes_end_the_stream_with_an_error(agent, envelope, code):
    status, headers, body = agent.http(
        "POST", "/process.Process/Start", envelope, {"Content-Type": STREAM}
    )
    assert (status, headers["content-type"]) == (200, STREAM)
    assert body[0] == 2
    assert int.from_bytes(body[1:5], "big") == len(body) - 5
    assert json.loads(body[5:])["error"]["code"] == code
    assert agent.is_alive()


@pytest.mark.parametrize(
    "body", [b"{", b"nan", b"[]", b"\xff", b'{"a":NaN}', b"{} {}", b"[" * 90_000]
)
def test_broken_json_is_invalid(agent, body):
    kind = {"Content-Type": "application/json"}
    status, _, reply = agent.http("POST", "/process.Process/List", body, kind)
    assert (status, json.loads(reply)["code"]) == (400, "invalid_argument")


def test_compression_and_other_protocol_versions_are_refused(agent):
    status, body = agent.rpc("List", {}, **{"Content-Encoding": "gzip"})
    assert (status, body["code"]) == (501, "unimplemented")
    status, body = agent.rpc("List", {}, **{"Connect-Protocol-Version": "2"})
    assert (status, body["code"]) == (400, "invalid_argument")
    for value in ("x", "-1", "99999999999"):
        stream = agent.run("true", headers={"Connect-Timeout-Ms": value})
        assert stream.error["code"] == "invalid_argument"
