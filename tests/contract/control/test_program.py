"""`python -m wrennd.control` as a program: its start, its key, its end."""

import concurrent.futures
import contextlib
import json
import signal
import sys
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from fakes.host_agent import ENDLESS, NOWHERE, FakeHostAgent, serving
from ports import free_port
from wrennd.control.store import keys
from wrennd.core.deadline import Deadline
from wrennd.linux import process

PATIENCE_S = 60


@pytest.fixture
def folder(tmp_path):
    with serving(FakeHostAgent(), tmp_path / "agent.sock"):
        yield tmp_path


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


MIB = 1 << 20
PIECE = bytes(256 << 10)
# Buffers of a hundred connections, and what the allocator keeps of them.
GROWTH_MIB = 64


@contextlib.contextmanager
def started(folder, *more):
    """One that is ready: its process, and a client with its key."""
    port = free_port()
    with (folder / "log").open("wb") as log:
        running = process.spawn(arguments(folder, port, *more), stdout=log, stderr=log)
    with running, httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        client.timeout = 120
        deadline = Deadline.after(PATIENCE_S)
        while not is_ready(client):
            assert not running.has_ended, (folder / "log").read_text()
            deadline.check("the program's start")
        client.headers["X-API-Key"] = (folder / "admin.key").read_text().strip()
        yield running, client


def peak_mib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def pieces(mib):
    return (PIECE for _ in range(mib * MIB // len(PIECE)))


@pytest.mark.long
def test_its_memory_stays_flat(folder):
    """A hundred MB in bodies that are refused, in files each way, and for who reads nothing."""
    with started(folder) as (running, client):
        box = client.post("/v1/sandboxes").json()["id"]
        at = f"/v1/sandboxes/{box}/files"

        def warm_up(_):
            client.put(at, params={"path": NOWHERE}, content=pieces(1)).raise_for_status()

        def refused(_):
            assert client.post("/v1/sandboxes", content=pieces(100)).status_code == 413

        def written(_):
            client.put(at, params={"path": NOWHERE}, content=pieces(100)).raise_for_status()

        def read(_):
            with client.stream("GET", at, params={"path": ENDLESS}) as answer:
                count = 0
                for piece in answer.iter_bytes():
                    count += len(piece)
                    if count > 100 * MIB:
                        break

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(warm_up, range(8)))
            before = peak_mib(running.pid)
            for work in (refused, written, read):
                list(pool.map(work, range(4)))
        with contextlib.ExitStack() as held:
            for _ in range(50):
                held.enter_context(reading_nothing(client, box))
            for _ in range(50):
                held.enter_context(client.stream("GET", at, params={"path": ENDLESS}))
            assert client.get("/v1/sandboxes").status_code == 200
        grown = peak_mib(running.pid) - before
        print(f"from {before:.0f} MiB by {grown:.0f} MiB")
        assert grown < GROWTH_MIB


@contextlib.contextmanager
def reading_nothing(client, box):
    """A WebSocket of a command that writes without end."""
    url = str(client.base_url).replace("http:", "ws:")
    headers = {"X-API-Key": client.headers["X-API-Key"]}
    path = f"{url}/v1/sandboxes/{box}/exec/stream"
    with connect(path, additional_headers=headers, proxy=None, max_queue=1) as opened:
        opened.send(json.dumps({"type": "start", "cmd": "yes"}))
        assert json.loads(opened.recv(timeout=PATIENCE_S))["type"] == "start"
        yield
        opened.close_socket()
