"""Firecracker's HTTP API over its Unix socket: one connection for each VM, one call at a time.

The server works through calls strictly one after another and keeps at most 10 connections, hence
one connection under a lock. It closes nothing by itself and removes no socket; both are ours.
"""

import errno
import http.client
import json
import os
import socket
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded, VmmFailed, VmmRefused
from wrennd.vmm.api import InstanceInfo, Resource, Speed

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

MAX_ANSWER_BYTES = 1 << 20


class ApiClient:
    """A connection to one VMM's socket. Safe between threads; `close()` may be called twice.

    Errors: VmmRefused when the VMM says no; VmmFailed when the connection breaks or the answer
    is not HTTP; DeadlineExceeded when no answer comes in the time of the call's kind.
    """

    def __init__(self, path: Path) -> None:
        self._http = _UnixConnection(path)
        self._lock = threading.Lock()

    def send(self, resource: Resource) -> None:
        self._call(resource.method, resource.path, resource.to_body(), resource.speed)

    def describe(self) -> InstanceInfo:
        answer = self._call("GET", "/", None, Speed.QUICK)
        try:
            return InstanceInfo(**{k: str(answer[k]) for k in InstanceInfo.__annotations__})
        except (KeyError, TypeError):
            raise VmmFailed(f"the VMM's answer to GET / lacks fields: {answer!r}") from None

    def vm_config(self) -> dict[str, Any]:
        return self._call("GET", "/vm/config", None, Speed.QUICK)

    def close(self) -> None:
        self._http.close()

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None, speed: Speed
    ) -> dict[str, Any]:
        with self._lock:
            try:
                return self._exchange(method, path, body, speed)
            except TimeoutError:
                self._http.close()
                raise DeadlineExceeded(
                    f"the VMM did not answer {method} {path} within {speed.timeout_s:g} s"
                ) from None
            except (OSError, http.client.HTTPException) as error:
                self._http.close()
                text = str(error) or type(error).__name__
                raise VmmFailed(f"the VMM broke off during {method} {path}: {text}") from error

    def _exchange(
        self, method: str, path: str, body: dict[str, Any] | None, speed: Speed
    ) -> dict[str, Any]:
        self._http.set_deadline(Deadline.after(speed.timeout_s))
        # Always a length and never chunks: the server reads bodies by Content-Length alone.
        data = None if body is None else json.dumps(body).encode()
        self._http.request(method, path, body=data, headers={"Accept": "application/json"})
        with self._http.getresponse() as response:
            raw = b"" if response.status == 204 else response.read(MAX_ANSWER_BYTES)
            status = response.status
        if status >= 300:
            raise VmmRefused(f"the VMM refused {method} {path}: {fault_text(raw)}")
        return decode(raw) if raw else {}


def decode(raw: bytes) -> dict[str, Any]:
    """A JSON object. Errors: VmmFailed. Not strict: its parse errors hold raw newlines."""
    try:
        value = json.loads(raw, strict=False)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise VmmFailed(f"the VMM answered what is not a JSON object: {raw[:200]!r}")
    return value


def fault_text(raw: bytes) -> str:
    """The text of an error body: `fault_message` from the API, `error` from its HTTP layer."""
    try:
        body = decode(raw)
    except VmmFailed:
        return raw[:200].decode(errors="replace")
    return str(body.get("fault_message") or body.get("error") or body)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket file, with a deadline for each exchange as a whole."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path
        self._deadline = Deadline.after(0)

    def set_deadline(self, deadline: Deadline) -> None:
        self._deadline = deadline
        if isinstance(self.sock, _Socket):
            self.sock.deadline = deadline

    def connect(self) -> None:
        self.sock = sock = _Socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.deadline = self._deadline
        sock.settimeout(self._deadline.remaining_s)
        # The directory is the VMM's own: what lies there must be a socket and no link to
        # another one, and stay the one that was looked at.
        found = os.open(self._path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISSOCK(os.fstat(found).st_mode):
                raise OSError(errno.ENOTSOCK, "not a socket", str(self._path))
            sock.connect(f"/proc/self/fd/{found}")
        finally:
            os.close(found)


class _Socket(socket.socket):
    """A socket whose every wait ends at one deadline: a VMM that drips bytes gains no time."""

    deadline = Deadline.after(0)

    def sendall(self, data: "ReadableBuffer", flags: int = 0, /) -> None:
        self._limit()
        super().sendall(data, flags)

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0) -> int:
        self._limit()
        return super().recv_into(buffer, nbytes, flags)

    def _limit(self) -> None:
        if self.deadline.is_over:
            raise TimeoutError
        self.settimeout(self.deadline.remaining_s)
