"""A VMM program under test: started on a socket of its own, spoken to in raw HTTP, always ended.

The program is what the environment's WRENN_VMM names (a command line); `wrenn`'s own names for
VMMs (auto, qemu-emulated, ...) and nothing mean our server. In the lab host the same tests are for
each VMM with KVM there is: `under_test` says for which just now.
"""

import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from wrennd.core.config import VMM_CHOICES
from wrennd.core.deadline import Deadline
from wrennd.linux import process

# A Full snapshot of a guest whose pages come from a handler takes half a minute in the lab host.
TIMEOUT_S = 120.0
OURS = (sys.executable, "-m", "wrennd.qemu_vmm")


IN_LAB = {
    "qemu-kvm": (*OURS, "--accel", "kvm"),
    "firecracker": (os.environ.get("WRENN_LAB_FIRECRACKER", ""),),
}
_UNDER_TEST: list[str] = []  # a key of IN_LAB, while one of those is tested


@contextmanager
def under_test(name: str) -> Iterator[None]:
    """Until its end, `program()` is that VMM of the lab's."""
    _UNDER_TEST.append(name)
    yield
    _UNDER_TEST.pop()


def program() -> tuple[str, ...]:
    if _UNDER_TEST:
        return IN_LAB[_UNDER_TEST[-1]]
    named = os.environ.get("WRENN_VMM", "")
    return OURS if named in ("", *VMM_CHOICES) else tuple(shlex.split(named))


def is_ours() -> bool:
    """Whether our server is the program: what it refuses by name, a Firecracker does."""
    return program()[: len(OURS)] == OURS


@dataclass(frozen=True)
class Response:
    status: int
    head: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def fault(self) -> str:
        assert self.status == 400, (self.status, self.body)
        return self.json["fault_message"]

    @property
    def headers(self) -> list[str]:
        return [line.partition(":")[0] for line in self.head.split("\r\n")[1:]]


def request(method: str, path: str, body: Any = None) -> bytes:
    """A request's bytes. body: bytes as they are, or what is made JSON of."""
    data = b"" if body is None else body if isinstance(body, bytes) else _json(body)
    length = f"Content-Length: {len(data)}\r\n" if data else ""
    return f"{method} {path} HTTP/1.1\r\n{length}\r\n".encode() + data


class Client:
    """One connection. Reads exactly one response at a time, so that pipelining shows."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT_S)
        try:
            self.socket.connect(os.fspath(path))
        except OSError:
            self.socket.close()
            raise
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> Response:
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        text = head.decode()
        length = 0
        for line in text.split("\r\n")[1:]:
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                length = int(value)
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Response(int(text.split()[1]), text, body)

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"the server closed the connection after {self._buffer!r}")
        self._buffer += data

    def request(self, method: str, path: str, body: Any = None) -> Response:
        self.ask(method, path, body)
        return self.receive()

    def ask(self, method: str, path: str, body: Any = None) -> None:
        self.send(request(method, path, body))

    def is_closed_by_server(self) -> bool:
        """Wait for the end of the connection; False when something else comes."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Server:
    """A running VMM. stdout and stderr go to `output` unless `stdout` is given. `wrapper`: a
    command that becomes the VMM."""

    def __init__(
        self,
        directory: Path,
        *extra: str,
        stdout: int | None = None,
        api: bool = True,
        wrapper: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self.socket_path = directory / "api.sock"
        self.output = directory / "output.log"
        command = [*wrapper, *program(), "--id", "test-vm", *extra]
        if api:
            command += ["--api-sock", os.fspath(self.socket_path)]
        with self.output.open("ab") as out:
            self.process = process.spawn(command, stdout=stdout or out, stderr=out)

    def wait_for_api(self) -> Self:
        """The program binds its socket itself: only its appearance can be waited for."""
        deadline = Deadline.after(TIMEOUT_S)
        while self.process.exit_code is None and not deadline.is_over:
            try:
                Client(self.socket_path).close()
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.005)
            else:
                return self
        raise AssertionError(f"no API: {self.text()}")

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def connect(self) -> Client:
        return Client(self.socket_path)

    def request(self, method: str, path: str, body: Any = None) -> Response:
        with self.connect() as client:
            return client.request(method, path, body)

    def put(self, path: str, body: Any) -> Response:
        return self.request("PUT", path, body)

    def patch(self, path: str, body: Any) -> Response:
        return self.request("PATCH", path, body)

    def get(self, path: str) -> Any:
        response = self.request("GET", path)
        assert response.status == 200, response
        return response.json

    def done(self, method: str, path: str, body: Any) -> None:
        """A request that must succeed without an answer."""
        response = self.request(method, path, body)
        assert (response.status, response.body) == (204, b""), response

    def exit_code(self) -> int:
        code = self.process.wait(Deadline.after(TIMEOUT_S))
        assert code is not None, "the VMM still runs"
        return code

    def qemu_pid(self) -> int:
        """The pid of the one child that our server has."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        (pid,) = children.read_text().split()
        return int(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()


def wait_until(is_so: Any, what: str, timeout_s: float = TIMEOUT_S) -> None:
    deadline = Deadline.after(timeout_s)
    while not is_so():
        if deadline.is_over:
            raise AssertionError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.01)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
