"""Files in a sandbox through the API, in both shapes."""

import contextlib
import http.client
import os

import httpx
import pytest


@pytest.fixture(scope="module", params=["sandboxes", "capsules"])
def at(server, request):
    return f"/v1/{request.param}/{server.create()}/files"


def test_put_and_get(server, at):
    content = os.urandom(3 << 20)
    put = server.api.put(at, params={"path": "/tmp/big"}, content=content)
    assert put.json() == {"path": "/tmp/big", "size": len(content)}
    assert server.api.get(at, params={"path": "/tmp/big"}).content == content


def test_form_and_read(server, at):
    sent = server.api.post(f"{at}/write", data={"path": "/tmp/a/b"}, files={"file": ("x", b"hi")})
    assert sent.status_code == 204
    assert server.api.post(f"{at}/read", json={"path": "/tmp/a/b"}).content == b"hi"
    assert server.api.post(f"{at}/stream/read", json={"path": "/tmp/a/b"}).content == b"hi"


def test_an_empty_file(server, at):
    server.api.put(at, params={"path": "/tmp/empty"}, content=b"")
    read = server.api.get(at, params={"path": "/tmp/empty"})
    assert (read.status_code, read.content) == (200, b"")


def test_a_streamed_form(server, at):
    def body():
        yield b'--xx\r\nContent-Disposition: form-data; name="path"\r\n\r\n/tmp/s\r\n'
        yield b'--xx\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(50):
            yield b"x" * 10_000
        yield b"\r\n--xx--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=xx"}
    sent = server.api.post(f"{at}/stream/write", content=body(), headers=headers)
    assert sent.status_code == 204, sent.text
    assert server.api.get(at, params={"path": "/tmp/s"}).content == b"x" * 500_000


def test_a_form_that_breaks_off_writes_nothing(server, at):
    body = (
        b'--xx\r\nContent-Disposition: form-data; name="path"\r\n\r\n/tmp/cut\r\n'
        b'--xx\r\nContent-Disposition: form-data; name="file"\r\n\r\nhalf'
    )
    headers = {"Content-Type": "multipart/form-data; boundary=xx"}
    sent = server.api.post(f"{at}/write", content=body, headers=headers)
    assert sent.status_code == 400, sent.text
    assert server.api.get(at, params={"path": "/tmp/cut"}).status_code == 404


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=xx"),
        (b"nonsense", "multipart/form-data; boundary=xx"),
        (b"--xx--\r\n", "multipart/form-data; boundary=xx"),
        (b"{}", "application/json"),
        (b"x", "multipart/form-data"),
        (b"x", f"multipart/form-data; boundary={'x' * 200}"),
        (
            b'--xx\r\nContent-Disposition: form-data; name="file"\r\n\r\nhi\r\n--xx--\r\n',
            "multipart/form-data; boundary=xx",
        ),
    ],
)
def test_what_is_no_form(server, at, body, kind):
    sent = server.api.post(f"{at}/write", content=body, headers={"Content-Type": kind})
    assert sent.status_code == 400, sent.text


def test_directories(server, at):
    made = server.api.post(f"{at}/mkdir", json={"path": "/tmp/d/e"})
    assert made.json()["entry"]["type"] == "directory"
    again = server.api.post(f"{at}/mkdir", json={"path": "/tmp/d/e"})
    assert again.status_code == 409
    code = again.json()["error"]["code"]
    assert code == ("conflict" if "capsules" in at else "already_exists")
    listed = server.api.post(f"{at}/list", json={"path": "/tmp/d"})
    assert [entry["name"] for entry in listed.json()["entries"]] == ["e"]
    assert server.api.post(f"{at}/stat", json={"path": "/tmp/d/e"}).json()["entry"]["name"] == "e"
    assert server.api.post(f"{at}/remove", json={"path": "/tmp/d"}).status_code == 204
    assert server.api.post(f"{at}/stat", json={"path": "/tmp/d/e"}).status_code == 404


@pytest.mark.parametrize("path", ["", "\0", "/x\0y", "x" * 5000, 5, None])
@pytest.mark.parametrize("route", ["read", "list", "stat", "mkdir", "remove"])
def test_wrong_paths(server, at, route, path):
    assert server.api.post(f"{at}/{route}", json={"path": path}).status_code == 400


def test_what_is_not_there(server, at):
    for route in ("read", "list", "stat", "remove"):
        assert server.api.post(f"{at}/{route}", json={"path": "/nowhere"}).status_code == 404
    assert server.api.get(at, params={"path": "/nowhere"}).status_code == 404


def test_too_much_at_once(server, at):
    """Refused by what is announced: nothing of it has to be sent."""
    head = {"Content-Type": "multipart/form-data; boundary=xx", "Content-Length": "200000000"}
    url = httpx.URL(server.url)
    connection = http.client.HTTPConnection(url.host, url.port, timeout=60)
    with contextlib.closing(connection):
        headers = {**head, "X-API-Key": server.key}
        connection.request("POST", f"{at}/write", body=iter([b"x" * 1000]), headers=headers)
        answer = connection.getresponse()
        assert answer.status == 413
        assert b"too_large" in answer.read()
