"""The HTTP dialect: what is answered to which bytes, whatever they ask for."""

import contextlib
import json
import os
import socket
from pathlib import Path

import pytest

from vmm_server import wait_until

GET = b"GET / HTTP/1.1\r\n\r\n"


def error_of(response):
    """The text of a parse error, whose body has a raw newline in a JSON string."""
    assert response.status == 400
    with pytest.raises(json.JSONDecodeError):
        json.loads(response.body)
    text = json.loads(response.body, strict=False)["error"]
    first, _, second = text.partition("\n")
    assert second == "All previous unanswered requests will be dropped."
    return first


def test_a_response_with_a_body(server):
    response = server.request("GET", "/")
    assert response.head.startswith("HTTP/1.1 200 \r\nServer: Firecracker API\r\n")
    assert response.headers == ["Server", "Connection", "Content-Type", "Content-Length"]


def test_a_response_without_a_body_has_no_length(server):
    response = server.put("/machine-config", {"vcpu_count": 1, "mem_size_mib": 128})
    assert response.head == "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive"


def test_the_connection_is_kept_also_when_the_client_would_close(server):
    with server.connect() as client:
        for _ in range(3):
            client.send(b"GET / HTTP/1.0\r\nConnection: close\r\n\r\n")
            response = client.receive()
            assert response.status == 200
            assert "Connection: keep-alive" in response.head


def test_pipelined_requests_are_answered_in_order(server):
    with server.connect() as client:
        client.send(GET + b"GET /version HTTP/1.1\r\n\r\n" + GET)
        assert "state" in client.receive().json
        assert "firecracker_version" in client.receive().json
        assert "state" in client.receive().json


def test_a_request_may_come_byte_by_byte(server):
    body = b'{"vcpu_count":2,"mem_size_mib":256}'
    head = b"PUT /machine-config HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    with server.connect() as client:
        for byte in head + body:
            client.send(bytes([byte]))
        assert client.receive().status == 204


def test_an_absolute_uri_and_slashes_around_a_path(server):
    assert server.request("GET", "http://localhost/version").status == 200
    assert server.request("GET", "//version/").status == 200


def test_a_query_is_part_of_the_path(server):
    fault = server.request("GET", "/version?x=1").fault
    assert fault == "Invalid request method and/or path: GET version?x=1."


@pytest.mark.parametrize("method", [b"POST", b"HEAD", b"OPTIONS", b"get", b""])
def test_other_methods(server, method):
    with server.connect() as client:
        client.send(method + b" / HTTP/1.1\r\n\r\n")
        assert error_of(client.receive()) == "Invalid HTTP Method: Unsupported HTTP method."


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"GET /\r\n\r\n", "Invalid request."),
        (b"GET / HTTP/2\r\n\r\n", "Invalid HTTP Version: Unsupported HTTP version."),
        (b"GET  HTTP/1.1\r\n\r\n", "Invalid URI: Empty URI not allowed."),
        (b"GET /\xff HTTP/1.1\r\n\r\n", "Invalid URI: Cannot parse URI as UTF-8."),
        (b"GET /" + b"a" * 1019, "Invalid request."),
    ],
)
def test_what_is_no_request(server, line, text):
    with server.connect() as client:
        client.send(line)
        assert error_of(client.receive()) == text
        client.send(GET)
        assert client.receive().status == 200, "the connection goes on"


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (
            b"GET / HTTP/1.1\r\nno-colon\r\n\r\n",
            "Invalid header. Reason: Header is incorrectly formatted. Key: no-colon",
        ),
        (
            b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "Invalid header. Reason: Invalid value. Key:Content-Length; Value: -1",
        ),
        (
            b"PUT / HTTP/1.1\r\nContent-Length: 4294967296\r\n\r\n",
            "Invalid header. Reason: Invalid value. Key:Content-Length; Value: 4294967296",
        ),
        (
            b"GET / HTTP/1.1\r\nAccept-Encoding: gzip, identity;q=0\r\n\r\n",
            "Invalid header. Reason: Invalid value. Key:Accept-Encoding; Value: identity;q=0",
        ),
        (
            b"PUT /logger HTTP/1.1\r\nContent-Length: 51201\r\n\r\n",
            "Request payload with size 51201 is larger than the limit of 51200 allowed by server.",
        ),
    ],
)
def test_headers_that_are_none(server, head, text):
    with server.connect() as client:
        client.send(head)
        assert error_of(client.receive()) == text
        client.send(GET)
        fault = "Invalid header. Reason: Header is incorrectly formatted. Key: GET / HTTP/1.1"
        assert error_of(client.receive()) == fault, "the connection waits for more headers"


def test_a_header_line_that_is_too_long(server):
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 1100)
        assert error_of(client.receive()).startswith("Invalid header. Reason: Invalid content")


def test_a_parse_error_drops_what_came_with_it(server):
    with server.connect() as client:
        client.send(GET + b"POST / HTTP/1.1\r\n\r\n")
        assert client.receive().status == 400
        client.send(GET)
        assert client.receive().status == 200


def test_unknown_header_values_are_ignored(server):
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nAccept: image/png\r\nExpect: 9\r\nContent-type: x\r\n\r\n")
        assert client.receive().status == 200


def test_continue_is_sent_before_the_body(server):
    body = b'{"vcpu_count":2,"mem_size_mib":256}'
    with server.connect() as client:
        client.send(
            b"PUT /machine-config HTTP/1.1\r\nExpect: 100-continue\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        interim = client.receive()
        assert (interim.status, interim.headers) == (100, ["Server", "Connection"])
        client.send(body)
        assert client.receive().status == 204


def test_names_of_headers_in_any_case(server):
    body = b'{"vcpu_count":2,"mem_size_mib":256}'
    with server.connect() as client:
        client.send(
            b"PUT /machine-config HTTP/1.0\r\ncOnTeNt-LeNgTh: %d\r\n\r\n" % len(body) + body
        )
        assert client.receive().status == 204


def test_what_follows_a_body_is_the_next_request(server):
    """A body that is longer than it says: the rest is no request line."""
    with server.connect() as client:
        client.send(b"PUT /machine-config HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}{}\r\n")
        assert error_of(client.receive()) == "Invalid request."
        client.send(GET)
        assert client.receive().status == 200


def test_a_length_of_0_is_no_body(server):
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        assert client.receive().status == 200
        client.send(b"PUT /logger HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        assert client.receive().fault == "Empty PUT request."


def test_descriptors_that_come_along_are_not_kept(server, tmp_path):
    path = tmp_path / "sent"
    with server.connect() as client, path.open("w") as file:
        socket.send_fds(client.socket, [GET], [file.fileno()])
        assert client.receive().status == 200
    wait_until(lambda: os.fspath(path) not in open_paths(server.process.pid), "a closed file")


def open_paths(pid):
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed while we looked
            found.append(os.fspath(link.readlink()))
    return found


def test_a_place_that_is_free_again_is_given_again(server):
    clients = [server.connect() for _ in range(10)]
    try:
        assert all(client.request("GET", "/").status == 200 for client in clients)
        clients.pop().close()

        def is_served():
            with server.connect() as client:
                client.send(GET)
                return client.receive().status == 200

        wait_until(is_served, "a place")
    finally:
        for client in clients:
            client.close()


def test_chunks_are_not_decoded(server):
    with server.connect() as client:
        client.send(b"PUT /logger HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert client.receive().fault == "Empty PUT request."


def test_a_body_of_the_largest_size(server):
    response = server.put("/logger", b" " * 51_200)
    assert "EOF while parsing a value" in response.fault


def test_the_eleventh_connection_is_turned_away(server):
    clients = [server.connect() for _ in range(10)]
    try:
        for client in clients:
            assert client.request("GET", "/").status == 200
        with server.connect() as extra:
            response = extra.receive()
            assert response.head.startswith("HTTP/1.1 503\r\nServer: Firecracker API\r\n")
            assert response.json == {"error": "Too many open connections"}
            assert extra.is_closed_by_server()
    finally:
        for client in clients:
            client.close()


def test_a_client_that_does_not_read_disturbs_nobody(server):
    with server.connect() as greedy:
        greedy.socket.setblocking(False)
        sent = 0
        try:
            while sent < 8 << 20:
                sent += greedy.socket.send(GET * 1000)
        except BlockingIOError:
            pass
        assert server.request("GET", "/").status == 200
