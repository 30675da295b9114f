"""`python -m wrennd.control` as a program: its start, its key, its end."""

import json
import signal
import socket
import sys

import httpx
import pytest

from fakes.host_agent import FakeHostAgent, serving
from wrennd.control.store import keys
from wrennd.core.deadline import Deadline
from wrennd.linux import process

PATIENCE_S = 60


@pytest.fixture
def folder(tmp_path):
    with serving(FakeHostAgent(), tmp_path / "agent.sock"):
        yield tmp_path


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def arguments(folder, port, *more):
    return (
        *(sys.executable, "-m", "wrennd.control"),
        *("--database", f"sqlite:///{folder / 'wrenn.db'}", "--agent", folder / "agent.sock"),
        *("--listen", f"127.0.0.1:{port}", "--key-file", folder / "admin.key", *more),
    )


def test_a_start_and_an_end(folder):
    """Also with a stream of events open, which has no end of its own."""
    port = free_port()
    with (folder / "log").open("wb") as log:
        running = process.spawn(arguments(folder, port), stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    deadline = Deadline.after(PATIENCE_S)
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        while not is_ready(client):
            assert not running.has_ended, (folder / "log").read_text()
            deadline.check("the program's start")
        key = (folder / "admin.key").read_text().strip()
        assert keys.KEY.fullmatch(key)
        assert key not in (folder / "log").read_text()
        headers = {"X-API-Key": key}
        made = client.post("/v1/sandboxes", headers=headers)
        assert made.status_code == 201
        with client.stream("GET", "/v1/events/stream", headers=headers) as feed:
            lines = feed.iter_lines()
            assert next(lines) == "event: connected"
            running.signal(signal.SIGTERM)
            assert [json.loads(line[5:]) for line in lines if line.startswith("data")]
    assert running.wait(Deadline.after(PATIENCE_S)) in (0, -signal.SIGTERM)
    running.close()


def is_ready(client):
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def test_a_refusal_is_one_sentence(tmp_path):
    argv = arguments(tmp_path, 1, "--listen", "0.0.0.0:7070")
    done = process.run(argv, timeout_s=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert "unencrypted" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_not_there_is_one_sentence(tmp_path):
    url = f"postgresql://wrenn@/none?host={tmp_path}"
    argv = arguments(tmp_path, 1, "--database", url)
    done = process.run(argv, timeout_s=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert "the database can't be used" in done.stderr
    assert "Traceback" not in done.stderr
