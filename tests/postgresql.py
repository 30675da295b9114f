"""A PostgreSQL server of a test's own: in a temporary directory, on a Unix socket, not as root."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from wrennd.core.deadline import Deadline
from wrennd.linux import process

PROGRAMS = Path("/usr/lib/postgresql")
PATIENCE_S = 120
USER = "wrenn"
NOBODY = 65534
# A test's data need not survive a loss of power, and few connect.
QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "40",
    "shared_buffers": "16MB",
    "listen_addresses": "",
    "autovacuum": "off",
}


@dataclass
class Server:
    """One that runs, or was killed."""

    directory: Path
    running: process.Process | None = None

    @property
    def url(self) -> str:
        """Of its first database."""
        return self.url_of("postgres")

    def url_of(self, name: str) -> str:
        return f"postgresql://{USER}@/{name}?host={self.directory}"

    def new_database(self, name: str) -> str:
        """Its URL."""
        with self.connected() as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url_of(name)

    def connected(self, name: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        """Every statement is its own transaction."""
        return psycopg.connect(
            host=os.fspath(self.directory), user=USER, dbname=name, autocommit=True
        )

    def start(self) -> None:
        """Until it takes connections."""
        settings = [f"--{name}={value}" for name, value in QUICK.items()]
        argv = [_program("postgres"), "-D", self.directory / "data", "-k", self.directory]
        with (self.directory / "log").open("ab") as log:
            self.running = process.spawn([*_as_nobody(), *argv, *settings], stdout=log, stderr=log)
        deadline = Deadline.after(PATIENCE_S)
        while True:
            with suppress(psycopg.OperationalError):
                self.connected().close()
                return
            assert not self.running.has_ended, (self.directory / "log").read_text()
            deadline.check("PostgreSQL's start")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Connections stay, and nothing is answered."""
        assert self.running is not None
        pids = [self.running.pid, *_children(self.running.pid)]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """Connections are broken off. May be called twice."""
        if self.running is not None:
            self.running.signal(signal.SIGQUIT)
            assert self.running.wait(Deadline.after(PATIENCE_S)) is not None
            self.running.close()
            self.running = None


@contextmanager
def serving(directory: Path | None = None) -> Iterator[Server]:
    """directory: where its data lie, if not in a directory of its own."""
    # Not below pytest's: others than root can't get there; and a socket's path is short.
    home = Path(tempfile.mkdtemp(prefix="pg-", dir=directory))
    server = Server(home)
    try:
        if os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
        made = ["-D", home / "data", "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        process.run([*_as_nobody(), _program("initdb"), *made], timeout_s=PATIENCE_S)
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home)


def _children(pid: int) -> list[int]:
    """Each connection has one, in a session of its own."""
    tasks = Path(f"/proc/{pid}/task")
    return [
        int(word) for task in tasks.iterdir() for word in (task / "children").read_text().split()
    ]


def _as_nobody() -> list[str]:
    """It refuses to run as root. It ends with the tests, however those end."""
    rights = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", "--pdeathsig=QUIT", *(rights if os.geteuid() == 0 else ()), "--"]


def _program(name: str) -> Path:
    """The newest; Debian keeps them off PATH."""
    found = sorted(PROGRAMS.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    assert found, f"there is no {PROGRAMS}/*/bin/{name}: apt-get install postgresql"
    return found[-1]
