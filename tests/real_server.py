"""The real server, `wrenn up`, of the tests' data directory: started, killed in parts, begun anew.

The control plane's own directory and the run directory's rest go at the end; sandboxes are whoever
made them's to destroy.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from ports import free_port
from whole_name import is_named
from wrenn_command import WRENN, environment
from wrennd.client.blocking import Client
from wrennd.core.errors import Error
from wrennd.linux.process import start_time
from wrennd.server.settings import STATE_ROOT
from wrennd.storage.layout import Layout

READY_S = 90.0
PARTS = ("wrennd.host.agent", "wrennd.control", "wrenn up")


class RealServer:
    """One `wrenn up` after the other, on one address and one data directory."""

    def __init__(self, layout: Layout, log: Path) -> None:
        self.layout = layout
        self.state_dir = STATE_ROOT / layout.installation
        self._log = log
        self.listen = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.listen}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [WRENN, "up", "--listen", self.listen],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(self.layout.data_dir),
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        """Whoever was killed is started again, by the supervisor or here."""

        def is_ready() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"the server ended:\n{self.text()[-3000:]}")
            with contextlib.suppress(httpx.HTTPError):
                return (
                    httpx.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == 200
                )
            return False

        wait_until(is_ready, "the server to be ready", READY_S)

    def client(self) -> Client:
        return Client(self.url, (self.state_dir / "admin.key").read_text().strip())

    def pids(self, part: str) -> list[int]:
        """Of the processes of a part: it is found by its command line and our data directory."""
        found = []
        for path in Path("/proc").iterdir():
            if not path.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (
                    (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                mine = os.fspath(self.layout.data_dir), self.layout.installation, self.listen
                if is_named(part, words) and any(is_named(one, words) for one in mine):
                    found.append(int(path.name))
        return found

    def kill(self, *parts: str) -> None:
        """SIGKILL; returns when they have ended. Without `wrenn up` they are started again."""
        gone = [(pid, start_time(pid)) for part in parts for pid in self.pids(part)]
        assert gone, f"{parts} don't run"
        for pid, _ in gone:
            os.kill(pid, signal.SIGKILL)
        if "wrenn up" in parts:
            assert self._process is not None
            self._process.wait(30)
            wait_until(lambda: not any(map(self.pids, PARTS)), "all parts to end", 30)
        else:
            wait_until(lambda: not any(is_there(*one) for one in gone), "the killed to end", 30)

    def stop(self) -> None:
        """SIGTERM, and to its end."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._process = None

    def secrets(self) -> dict[str, str]:
        """What nobody may read in a log or a command line, to what it is."""
        found = {(self.state_dir / "admin.key").read_text().strip(): "the key"}
        for path in self.layout.sandboxes.glob("*/token"):
            with contextlib.suppress(FileNotFoundError):  # it was destroyed
                found[path.read_text().strip()] = f"the token of {path.parent.name}"
        return found

    def told(self, secrets: dict[str, str]) -> list[str]:
        """Those of the secrets that stand in the log of all parts, or in their command lines."""
        lines = self.text()
        for pid in (pid for part in PARTS for pid in self.pids(part)):
            with contextlib.suppress(OSError):
                lines += Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        return [name for secret, name in secrets.items() if secret in lines]

    def text(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


def is_there(pid: int, started: int) -> bool:
    with contextlib.suppress(OSError):
        return start_time(pid) == started
    return False


def wait_until(is_so: Callable[[], bool], what: str, timeout_s: float) -> None:
    ends = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < ends, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.05)


@contextmanager
def serving(layout: Layout, log: Path) -> Iterator[RealServer]:
    """A server that is ready. At the end all sandboxes and templates of the API are destroyed, it
    is stopped, and what it had for itself is removed. No secret of it was told to anybody."""
    server = RealServer(layout, log)
    try:
        server.start()
        yield server
        assert server.told(server.secrets()) == []
        clear(server.client())
    finally:
        server.stop()
        shutil.rmtree(server.state_dir, ignore_errors=True)


def clear(client: Client) -> None:
    with contextlib.closing(client):
        for sandbox in client.list():
            client.destroy(sandbox.id)
        for template in client.templates():
            if template.kind == "snapshot":
                with contextlib.suppress(Error):
                    client.delete_template(template.name)
