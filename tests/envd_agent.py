"""An envd to test against, and a client of it that shares no code with ours."""

import base64
import contextlib
import http.client
import inspect
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import pytest

import wrennd

SOURCE = Path(wrennd.__path__[0]).parent
# As the guest starts it: no site, and not through runpy.
PROGRAM = (
    f"import sys; sys.path.insert(0, {os.fspath(SOURCE)!r});"
    "from wrennd.envd.__main__ import main; sys.exit(main(sys.argv[1:]))"
)
TIMEOUT_S = 20.0
STREAM = "application/connect+json"
LOCAL = {"tmp_path", "fresh_agent"}
RAW = {"Content-Type": "application/octet-stream"}


@dataclass
class Stream:
    """A streaming call: what came, envelope by envelope."""

    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection
    pid: int = 0
    end: dict | None = None
    error: dict | None = None
    keepalives: int = 0
    chunks: list = field(default_factory=list)

    @property
    def output(self) -> dict:
        """All that was read so far, by stream."""
        return {
            wanted: b"".join(data for name, data in self.chunks if name == wanted)
            for wanted in ("stdout", "stderr", "pty")
        }

    def next(self) -> dict | None:
        """The next message; None at the end, whose error is kept."""
        head = self.response.read(5)
        assert len(head) == 5, "the stream broke off"
        body = json.loads(self.response.read(int.from_bytes(head[1:], "big")))
        if head[0] == 2:
            self.error = body.get("error")
            assert self.response.read() == b""
            self.close()
            return None
        event = body["event"]
        if "start" in event:
            self.pid = event["start"]["pid"]
        elif "end" in event:
            self.end = event["end"]
        elif "keepalive" in event:
            self.keepalives += 1
        else:
            (name, data), *_ = event["data"].items()
            self.chunks.append((name, base64.b64decode(data)))
        return event

    def rest(self) -> "Stream":
        while self.next() is not None:
            pass
        return self

    def close(self) -> None:
        self.response.close()
        self.connection.close()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


@dataclass
class Agent:
    """An agent that listens. `pid` is 0 when it isn't a process of this machine."""

    address: str
    port: int
    pid: int = 0
    headers: dict = field(default_factory=dict)

    @property
    def as_root(self) -> dict:
        """Headers of a command that root runs."""
        return user_header("root")

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, self.port, timeout=TIMEOUT_S)

    def socket(self) -> socket.socket:
        return socket.create_connection((self.address, self.port), timeout=TIMEOUT_S)

    def http(self, method: str, target: str, body=None, headers=None):
        """Status, headers (lower case) and body of one request."""
        connection = self.connection()
        try:
            connection.request(method, target, body, {**self.headers, **(headers or {})})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, found, response.read()
        finally:
            connection.close()

    def rpc(self, method: str, message: dict, service="process.Process", **headers):
        """Status and decoded body of a unary call."""
        status, _, body = self.http(
            "POST",
            f"/{service}/{method}",
            json.dumps(message),
            {"Content-Type": "application/json", **headers},
        )
        return status, json.loads(body)

    def fs(self, method: str, message: dict, **headers):
        """Status and decoded body of a call to the file tree."""
        return self.rpc(method, message, "filesystem.Filesystem", **headers)

    def put(self, path, body=b"", headers=None, **query):
        """Upload a file: status and decoded reply."""
        target = "/files?" + urlencode({"path": str(path), **query})
        status, _, reply = self.http("POST", target, body, {**RAW, **(headers or {})})
        return status, json.loads(reply)

    def get(self, path, headers=None, **query):
        """Download a file: status, headers, body."""
        target = "/files?" + urlencode({"path": str(path), **query})
        return self.http("GET", target, headers=headers)

    def stream(self, method: str, message: dict, service="process.Process", **headers) -> Stream:
        """Begin a streaming call."""
        connection = self.connection()
        body = json.dumps(message).encode()
        envelope = b"\0" + len(body).to_bytes(4, "big") + body
        sent = {"Content-Type": STREAM, **self.headers, **headers}
        connection.request("POST", f"/{service}/{method}", envelope, sent)
        try:
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        assert response.status == 200
        assert response.getheader("content-type") == STREAM
        return Stream(response, connection)

    def start(self, *argv: str, headers=None, envs=None, cwd=None, **request) -> Stream:
        """Start a process; its start event has been read, or the error."""
        config = {"cmd": argv[0], "args": list(argv[1:])}
        if envs is not None:
            config["envs"] = envs
        if cwd is not None:
            config["cwd"] = cwd
        stream = self.stream("Start", {"process": config, **request}, **(headers or {}))
        stream.next()
        return stream

    def run(self, *argv: str, **options) -> Stream:
        """Start a process and read everything to its end."""
        stream = self.start(*argv, **options)
        return stream if stream.error else stream.rest()

    def sh(self, script: str, **options) -> Stream:
        return self.run("/bin/sh", "-c", script, **options)

    def is_alive(self) -> bool:
        return self.http("GET", "/health")[0] == 204

    def rss_kib(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


@pytest.fixture
def folder(agent) -> Iterator[str]:
    """An empty directory of the agent's default user, wherever the agent runs."""
    path = f"/tmp/envd-test-{secrets.token_hex(8)}"
    assert agent.fs("MakeDir", {"path": path})[0] == 200
    yield path
    agent.fs("Remove", {"path": path})


def adopted(suites) -> dict:
    """Fixtures and tests of other modules, to be run with another `agent`.

    Left out is what can only be told on the agent's own machine. Tests get their module's name,
    so that none hides another.
    """
    found = {}
    for suite in suites:
        prefix = suite.__name__.rpartition(".")[2]
        for name, value in vars(suite).items():
            if name.startswith("test_"):
                wanted = set(inspect.signature(value).parameters)
                if not LOCAL & wanted and wanted & {"agent", "freezable"}:
                    found[f"{prefix}_{name.removeprefix('test_')}"] = value
            elif type(value).__name__ == "FixtureFunctionDefinition":
                found[name] = value
    return found


def user_header(name: str) -> dict:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:".encode()).decode()}


@contextmanager
def running(*options: str, program: str = PROGRAM) -> Iterator[Agent]:
    """An envd of its own on a free port of the loopback, ended with the block."""
    argv = [sys.executable, "-I", "-S", "-c", program, "--address", "127.0.0.1", *options]
    if "--listen-fd" not in options:
        argv += ["--port", "0"]
    fds = tuple(int(options[i + 1]) for i, name in enumerate(options) if name == "--listen-fd")
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        pass_fds=fds,
    ) as popen:
        try:
            assert select.select([popen.stdout], [], [], TIMEOUT_S)[0], "envd did not start"
            line = popen.stdout.readline().decode()
            assert line.startswith("envd: listening on ")
            yield Agent("127.0.0.1", int(line.rsplit(":", 1)[1]), popen.pid)
        finally:
            if popen.poll() is None:
                end_with_children(popen)


def end_with_children(popen: subprocess.Popen) -> None:
    """Stopped first: then it reaps nobody, and the pids stay whose they are."""
    popen.send_signal(signal.SIGSTOP)
    children = Path(f"/proc/{popen.pid}/task/{popen.pid}/children").read_text().split()
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(pid), signal.SIGKILL)
    popen.kill()
