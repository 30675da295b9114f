"""A host agent that runs for tests, and the generated client over its Unix socket.

`AgentProcess` is the program itself, as `wrenn up` starts it. `client` is the synchronous client of
any agent that listens on a socket, a fake one too.
"""

import contextlib
import http.client
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from connectrpc.errors import ConnectError
from pyqwest import Headers, SyncClient, SyncRequest, SyncResponse

from wrennd.core.deadline import Deadline
from wrennd.core.errors import Error
from wrennd.gen.hostagent.hostagent_connect import HostAgentServiceClientSync
from wrennd.gen.hostagent.hostagent_pb import CommandSpec, ErrorDetail
from wrennd.linux import process

START_S = 60.0
STOP_S = 60.0
BASE = "http://agent"


class UnixTransport:
    """HTTP/1.1 over a Unix socket for pyqwest: a connection for each request."""

    def __init__(self, path: Path, timeout_s: float = 120.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def execute_sync(self, request: SyncRequest) -> SyncResponse:
        connection = http.client.HTTPConnection("agent")
        connection.sock = self.connected()
        body = request.content
        headers = dict(request.headers.items())
        is_whole = body is None or isinstance(body, bytes)
        if not is_whole:
            headers["transfer-encoding"] = "chunked"
        with contextlib.ExitStack() as held:
            held.callback(connection.close)
            # Who refuses a body stops reading it, but says why first.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(
                    request.method,
                    request.url.removeprefix(BASE),
                    body,
                    headers,
                    encode_chunked=not is_whole,
                )
            response = connection.getresponse()
            held.pop_all()
        return SyncResponse(
            status=response.status,
            headers=Headers(response.getheaders()),
            content=_Body(connection, response),
        )

    def connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self._timeout_s)
        try:
            sock.connect(os.fspath(self._path))
        except OSError:
            sock.close()
            raise
        return sock


class _Body:
    """A reply's bytes as they come; closing it drops the connection."""

    def __init__(self, connection, response) -> None:
        self._connection = connection
        self._response = response

    def __iter__(self):
        return self

    def __next__(self) -> bytes:
        data = self._response.read1(1 << 18)
        if not data:
            self.close()
            raise StopIteration
        return data

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def client(path: Path, *, timeout_s: float = 120.0) -> HostAgentServiceClientSync:
    return HostAgentServiceClientSync(
        BASE,
        http_client=SyncClient(UnixTransport(path, timeout_s)),
        accept_compression=(),
        send_compression=None,
    )


def command(*argv: str, **more) -> CommandSpec:
    return CommandSpec(cmd=argv[0], args=list(argv[1:]), **more)


def error_of(error: ConnectError) -> Error:
    """What the agent said, by its detail."""
    for detail in error.details:
        found = detail.value(ErrorDetail)
        if found is not None:
            return Error.from_wire(
                {"code": found.code, "message": found.message, "hint": found.hint}
            )
    raise AssertionError(f"an error without its detail: {error.code}: {error}")


@contextmanager
def refused(kind: type[Error]) -> Iterator[pytest.ExceptionInfo[ConnectError]]:
    """The block raises exactly that error of ours."""
    with pytest.raises(ConnectError) as raised:
        yield raised
    found = error_of(raised.value)
    assert type(found) is kind, f"{found.code}: {found}"


class AgentProcess:
    """`python -m wrennd.host.agent` on a data directory, in the background."""

    def __init__(self, data_dir: Path, folder: Path, *options: str) -> None:
        self.socket = folder / "agent.sock"
        self.log = folder / "agent.log"
        self._argv = (
            *(sys.executable, "-m", "wrennd.host.agent"),
            *("--data-dir", data_dir, "--socket", self.socket),
            *options,
        )
        self._process: process.Process | None = None

    @property
    def client(self) -> HostAgentServiceClientSync:
        return client(self.socket)

    def spawn(self) -> process.Process:
        """Start it, and don't wait."""
        with self.log.open("ab") as log:
            self._process = process.spawn(self._argv, stdout=log, stderr=log)
        return self._process

    def start(self) -> None:
        """Start it, and wait until it serves."""
        running = self.spawn()
        deadline = Deadline.after(START_S)
        while not self._answers():
            assert not running.has_ended, self.log.read_text()
            deadline.check("the agent's start")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            UnixTransport(self.socket).connected().close()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    @property
    def running(self) -> process.Process:
        assert self._process is not None, "it was not started"
        return self._process

    def stop(self) -> int | None:
        """SIGTERM; the exit code."""
        self.running.signal(signal.SIGTERM)
        code = self.running.wait(Deadline.after(STOP_S))
        assert code is not None, "it did not stop"
        self.running.close()
        return code

    def kill(self) -> None:
        """SIGKILL, to it alone."""
        self.running.signal(signal.SIGKILL)
        self.running.wait(Deadline.after(STOP_S))
        self.running.close()

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
