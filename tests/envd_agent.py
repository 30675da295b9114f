"""An envd to test against, and a client of it that shares no code with ours."""

import base64
import http.client
import inspect
import json
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import pytest

import own_namespaces
import wrennd
from wrennd.core.deadline import Deadline
from wrennd.linux.cgroup import Cgroup, Hierarchy

SOURCE = Path(wrennd.__path__[0]).parent
# As the guest starts it: no site, and not through runpy.
PROGRAM = (
    f"import sys; sys.path.insert(0, {os.fspath(SOURCE)!r});"
    "from wrennd.envd.__main__ import main; sys.exit(main(sys.argv[1:]))"
)
TIMEOUT_S = 20.0
LOOPBACK = "127.0.0.1"
INSTALLATION = f"test-envd-{os.getpid()}"
GROUPS = f"wrenn-{INSTALLATION}"
STREAM = "application/connect+json"
# Fixtures of what is only where the agent is a process of this machine.
LOCAL = {"tmp_path", "local_agent", "local_freezable"}
# Fixtures by which a test reaches an agent, wherever it runs.
AGENTS = {
    "agent",
    "client",
    "fresh_agent",
    "freezable",
    "guarded",
    "limited_agent",
    "new_agent",
    "pausing",
    "restorable",
}
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

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing more comes for so long, behind what has come already."""
        self.connection.sock.settimeout(seconds)
        try:
            self.rest()
        except TimeoutError:
            return True
        return False

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


class Connection(http.client.HTTPConnection):
    """To an agent, wherever that listens."""

    def __init__(self, agent: "Agent") -> None:
        super().__init__(agent.address, agent.port, timeout=agent.timeout_s)
        self._agent = agent

    def connect(self) -> None:
        self.sock = self._agent.socket()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@dataclass
class Agent:
    """An agent that listens. `pid` is 0 when it isn't a process of this machine.

    network: a descriptor of the network that it listens in; -1 when it can be reached from here.
    timeout_s: of each wait for it.
    """

    address: str
    port: int
    pid: int = 0
    headers: dict = field(default_factory=dict)
    network: int = -1
    timeout_s: float = TIMEOUT_S

    @property
    def as_root(self) -> dict:
        """Headers of a command that root runs."""
        return user_header("root")

    def entered(self) -> AbstractContextManager[None]:
        """The calling thread in its network: where any other client than this has to be."""
        return nullcontext() if self.network < 0 else own_namespaces.entered(self.network)

    def connection(self) -> "Connection":
        return Connection(self)

    def socket(self) -> socket.socket:
        with self.entered():
            return socket.create_connection((self.address, self.port), timeout=self.timeout_s)

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
        with self.start(*argv, **options) as stream:
            return stream if stream.error else stream.rest()

    def sh(self, script: str, **options) -> Stream:
        return self.run("/bin/sh", "-c", script, **options)

    def is_alive(self) -> bool:
        return self.http("GET", "/health")[0] == 204

    def rss_kib(self) -> int:
        return int(self.told("status").split("VmRSS:")[1].split()[0])

    def open_files(self) -> int:
        status, body = self.fs("ListDir", {"path": "/proc/self/fd"}, **self.as_root)
        assert status == 200, body
        return len(body["entries"])

    def children(self) -> list[str]:
        """What the kernel says of each process that it has started and not reaped."""
        pid = self.told("stat").split()[0]
        lines = self.sh(
            f"for child in $(cat /proc/{pid}/task/{pid}/children); do cat /proc/$child/stat; done",
            headers=self.as_root,
        )
        return lines.output["stdout"].decode().splitlines()

    def told(self, name: str) -> str:
        """What the kernel says of it, by its own mouth: wherever it runs, it can read that."""
        status, _, body = self.get(f"/proc/self/{name}", username="root")
        assert status == 200, body
        return body.decode()


@dataclass(frozen=True)
class Tree:
    """The files of the machine that an agent answers for, by the agent: while its gate is open.

    root: where they are on the machine that it runs on; empty when that is the same.
    """

    agent: Agent
    root: str

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def read(self, name: str) -> str | None:
        """None for what isn't there, or is no file."""
        status, _, body = self.agent.get(self.path(name), username="root")
        assert status in (200, 400, 404), body
        return body.decode() if status == 200 else None

    def write(self, name: str, text: str, **query: str) -> None:
        reply = self.agent.put(self.path(name), text.encode(), username="root", **query)
        assert reply[0] == 200, reply

    def sh(self, script: str) -> None:
        """As root, in its root."""
        done = self.agent.sh(f"cd '{self.root}/' && {script}", headers=self.agent.as_root)
        assert done.end["exitCode"] == 0, done.output


@pytest.fixture
def folder(agent) -> Iterator[str]:
    """An empty directory of the agent's default user, wherever the agent runs."""
    path = f"/tmp/envd-test-{secrets.token_hex(8)}"
    assert agent.fs("MakeDir", {"path": path})[0] == 200
    yield path
    agent.fs("Remove", {"path": path})


def heavy(test):
    """Of a test that takes too long in an emulated guest to be run there each time."""
    test.is_heavy = True
    return test


def adopted(suites, *, heavy: bool = False) -> dict:
    """Fixtures and tests of other modules, to be run with another `agent`: the heavy, or the rest.

    Left out is what can only be told on the agent's own machine. Tests get their module's name,
    so that none hides another.
    """
    found: dict = {}
    for suite in suites:
        prefix = suite.__name__.rpartition(".")[2]
        for name, value in vars(suite).items():
            if name.startswith("test_"):
                wanted = set(inspect.signature(value).parameters)
                is_wanted = getattr(value, "is_heavy", False) == heavy
                if is_wanted and wanted & AGENTS and not wanted & LOCAL:
                    found[f"{prefix}_{name.removeprefix('test_')}"] = value
            elif type(value).__name__ == "FixtureFunctionDefinition":
                assert found.setdefault(name, value) is value, f"there are two fixtures {name}"
    return found


def user_header(name: str) -> dict:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:".encode()).decode()}


@contextmanager
def running(*options: str, program: str = PROGRAM) -> Iterator[Agent]:
    """An envd in namespaces of its own, ended with the block and all that it has started."""
    argv = [sys.executable, "-I", "-S", "-c", program, "--address", LOOPBACK, *options]
    passed = tuple(int(options[i + 1]) for i, name in enumerate(options) if name == "--listen-fd")
    with own_namespaces.started(argv, pass_fds=passed) as started:
        assert started.first_line.startswith("envd: listening on ")
        port = int(started.first_line.rsplit(":", 1)[1])
        # A socket that was passed to it is of this network.
        yield Agent(LOOPBACK, port, started.pid, network=-1 if passed else started.network)


@contextmanager
def running_with_groups(*options: str) -> Iterator[Agent]:
    """As `running`; it has groups to freeze, in a cgroup of the test's own.

    In CI a machine without cgroup2 is a failure: nobody would notice what isn't run.
    """
    hierarchy = Hierarchy.find()
    if hierarchy is None:
        if os.environ.get("CI"):
            pytest.fail("groups can't be made without cgroup2")
        pytest.skip("needs cgroup2 to make groups")
    root = Path(hierarchy.mount) / GROUPS
    root.mkdir()
    try:
        with running("--cgroups", os.fspath(root), *options) as agent:
            yield agent
    finally:
        for path in (*root.glob("*/"), root):
            Cgroup(path).remove(Deadline.after(60))
