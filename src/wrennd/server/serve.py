"""One server of one data directory, from its lock to its end: what `wrenn up` does."""

import contextlib
import http.client
import os
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wrennd.core.config import Config, service_manager
from wrennd.core.deadline import Deadline
from wrennd.core.errors import AlreadyExists, HostUnsuitable
from wrennd.linux import files, process
from wrennd.linux.notify import READY, STOPPING, notify
from wrennd.server import account, parts
from wrennd.server.facts import Facts, read
from wrennd.server.settings import USER, RunFiles, Settings
from wrennd.server.supervise import Stopped, Supervisor, signals
from wrennd.storage.layout import Layout

READY_S = 120.0  # adopting many sandboxes, or migrating a large database, takes its time
ASK_TIMEOUT_S = 2.0


def serve(
    config: Config, layout: Layout, settings: Settings, is_up: Callable[[Facts, str], None]
) -> None:
    """Run until a signal comes. `is_up` is called when it is ready, with the key that this start
    has made: "" unless it was the first one. A service manager that asked for it is told, too.

    Errors: HostUnsuitable, AlreadyExists when one runs, Error when it can't start.
    """
    if os.geteuid() != 0:
        raise HostUnsuitable(
            "the server makes sandboxes, which only root can", hint="run it with sudo"
        )
    run = RunFiles.of(layout)
    user = account.ensured(USER)
    with _taken(layout, run, user), signals() as came, contextlib.ExitStack() as held:
        account.give(settings.state_dir, user)
        if settings.key_file.parent != settings.state_dir:
            account.give(settings.key_file.parent, user)
        had_key = settings.key_file.exists()
        supervisor = Supervisor(
            (parts.agent(config, run, user), parts.control(config, settings, run, user)), came
        )
        held.callback(supervisor.stop)
        held.callback(notify, service_manager(), STOPPING)
        try:
            supervisor.start(lambda: is_healthy(settings.listen.url), Deadline.after(READY_S))
        except Stopped:
            return
        facts = Facts(
            pid=os.getpid(),
            start_time=process.start_time(os.getpid()),
            url=settings.listen.url,
            key_file=os.fspath(settings.key_file),
        )
        facts.write(run.facts)
        held.callback(run.facts.unlink, missing_ok=True)
        is_up(facts, "" if had_key else key_of(facts))
        notify(service_manager(), READY, f"STATUS=The API is at {facts.url}")
        supervisor.run()


@contextmanager
def _taken(layout: Layout, run: RunFiles, user: account.Account) -> Iterator[None]:
    """The directory of the one server that this installation may have. Errors: AlreadyExists."""
    # In the data directory, where it stays: a lock that is removed can be held twice.
    lock = os.open(layout.server_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.ExitStack() as held:
        held.callback(os.close, lock)
        if not files.try_lock(lock):
            found = read(run.facts)
            where = f" at {found.url}, process {found.pid}" if found else ""
            raise AlreadyExists(
                f"a server of this data directory runs already{where}", hint="wrenn down ends it"
            )
        run.directory.mkdir(parents=True, exist_ok=True)
        run.directory.parent.chmod(0o755)
        os.chown(run.directory, 0, user.gid)
        run.directory.chmod(0o750)
        held.callback(_clear, run)
        yield


def _clear(run: RunFiles) -> None:
    """Its files and, unless there are sandboxes, the installation's directory."""
    for path in (run.facts, run.agent_socket):
        path.unlink(missing_ok=True)
    for directory in (run.directory, run.directory.parent):
        with contextlib.suppress(OSError):
            directory.rmdir()


def is_healthy(url: str) -> bool:
    """Whether a server answers there and says that it is ready."""
    parsed = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(
        parsed.hostname or "", parsed.port, timeout=ASK_TIMEOUT_S
    )
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def key_of(facts: Facts) -> str:
    """The key that the server's first start wrote. Empty when it is not ours to read."""
    try:
        return Path(facts.key_file).read_text().strip()
    except OSError:
        return ""
