"""GET and POST /files."""

import json
import os
from pathlib import Path
from urllib.parse import urlencode

import pytest

RAW = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def folder(tmp_path):
    tmp_path.chmod(0o777)
    return tmp_path


def put(agent, path, body=b"", headers=None, **query):
    target = "/files?" + urlencode({"path": str(path), **query})
    status, _, reply = agent.http("POST", target, body, {**RAW, **(headers or {})})
    return status, json.loads(reply)


def get(agent, path, **query):
    return agent.http("GET", "/files?" + urlencode({"path": str(path), **query}))


def test_a_file_comes_back_as_it_went(agent, folder):
    path = folder / "deep er" / "ü" / "file"
    status, reply = put(agent, path, b"hello")
    assert (status, reply) == (200, [{"path": str(path), "name": "file", "type": "file"}])
    assert path.read_bytes() == b"hello"
    status, headers, body = get(agent, path)
    assert (status, body) == (200, b"hello")
    assert headers["content-length"] == "5"


def test_mode_and_parents(agent, folder):
    path = folder / "a" / "b" / "file"
    put(agent, path, b"x")
    assert path.stat().st_mode & 0o7777 == 0o644
    assert path.parent.stat().st_mode & 0o7777 == 0o755
    put(agent, path, b"y", mode="4750")
    assert path.stat().st_mode & 0o7777 == 0o4750
    put(agent, path, b"", mode="")
    assert path.stat().st_mode & 0o777 == 0o750
    assert path.read_bytes() == b""


def test_large_files_are_streamed(agent, folder):
    path = folder / "large"
    pieces = [bytes([number]) * 100_000 for number in range(200)]
    assert put(agent, path, iter(pieces))[0] == 200
    assert path.read_bytes() == b"".join(pieces)
    status, headers, body = get(agent, path)
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    assert body == b"".join(pieces)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072])
def test_sizes_around_a_piece(agent, folder, size):
    path = folder / "file"
    put(agent, path, b"z" * size)
    assert get(agent, path)[2] == b"z" * size


def test_empty_file_has_a_length(agent, folder):
    put(agent, folder / "empty")
    assert get(agent, folder / "empty")[1]["content-length"] == "0"


def test_files_that_the_kernel_makes_up_have_no_size(agent):
    assert len(get(agent, "/proc/sys/kernel/random/boot_id")[2]) == 37


def test_relative_paths_begin_at_home(agent):
    home = agent.sh("cd; pwd -P").output["stdout"].decode().strip()
    if not os.access(home, os.W_OK):
        home = None
    status, reply = put(agent, "envd-test-relative", b"x")
    if home:
        assert os.path.realpath(reply[0]["path"]) == f"{home}/envd-test-relative"
        assert get(agent, "~/envd-test-relative")[2] == b"x"
        Path(reply[0]["path"]).unlink()
    else:
        assert status == 403


def test_refusals(agent, folder):
    assert json.loads(get(agent, "/no/such")[2]) == {
        "code": 404,
        "message": "path '/no/such' does not exist",
    }
    assert get(agent, folder)[0] == 400
    assert agent.http("GET", "/files")[0] == 400
    assert get(agent, "a\0b")[0] == 400
    assert get(agent, "/etc/passwd", username="nobody-of-that-name")[0] == 401
    assert put(agent, folder, b"x")[0] == 400
    assert put(agent, folder / "x", b"x", mode="9")[0] == 400
    assert put(agent, folder / "x", b"x", mode="77777")[0] == 400
    assert put(agent, folder / "x", b"x", {"Content-Type": "text/plain"})[0] == 415
    assert put(agent, folder / "x", b"x", {"Content-Encoding": "gzip"})[0] == 415
    assert not (folder / "x").exists()
    (folder / "file").touch()
    assert put(agent, folder / "file" / "x", b"x")[0] == 400
    assert put(agent, "/dev/full", b"x")[0] == 400


def test_a_fifo_does_not_stop_the_agent(agent, folder):
    os.mkfifo(folder / "fifo")
    (folder / "fifo").chmod(0o666)
    assert get(agent, folder / "fifo")[0] == 400
    assert put(agent, folder / "fifo", b"x")[0] in (400, 500)
    assert agent.is_alive()


@pytest.mark.root
def test_a_full_disk_is_507(agent, folder):
    from wrennd.linux.process import run

    run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=1777", "none", folder], timeout_s=10)
    try:
        status, reply = put(agent, folder / "file", iter([bytes(100_000)] * 30))
        assert (status, reply["code"]) == (507, 507)
    finally:
        run(["umount", folder], timeout_s=10)
