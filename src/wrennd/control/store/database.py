"""The way to the database: transactions in threads, and its failures as our errors.

A function that takes a connection is run in one transaction: `await database.run(function)`, or
`read(function)` for what changes nothing. A database that is locked for longer than BUSY_S, full,
gone or broken is Unavailable (503): what was begun is rolled back, and what the host did meanwhile
is found again by reconciling.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError, IntegrityError, SQLAlchemyError

from wrennd.core.errors import InvalidInput, Unavailable

BUSY_S = 5.0
READ_BUSY_S = 0.2  # readers of a write-ahead log wait for nobody but its recovery
THREADS = 4
T = TypeVar("T")

log = logging.getLogger(__name__)


class Database:
    """Owns the engine and the threads that use it; `close()` may be called twice."""

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="database")
        self._is_embedded = self._engine.dialect.name == "sqlite"
        reader = make_engine(url, busy_s=READ_BUSY_S) if self._is_embedded else self._engine
        self._reader = reader.execution_options(is_read=True)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """The result of `work`, committed; it runs to its end also when the caller is cancelled.

        Errors: Unavailable; whatever `work` raises, rolled back.
        """
        return await self._in_thread(self.run_here, work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """As `run`, for what changes nothing: it waits for no writer.

        An embedded database is read at once, on the loop: that takes a fraction of a millisecond,
        and the way to a thread and back takes longer than that, on a busy machine tens of them.
        """
        if self._is_embedded:
            return _transact(self._reader, work)
        return await self._in_thread(self._read_here, work)

    def run_here(self, work: Callable[[Connection], T]) -> T:
        """As `run`, in the calling thread."""
        return _transact(self._engine, work)

    def _read_here(self, work: Callable[[Connection], T]) -> T:
        return _transact(self._reader, work)

    async def _in_thread(
        self, run: Callable[[Callable[[Connection], T]], T], work: Callable[[Connection], T]
    ) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, run, work)

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        self._reader.dispose()
        self._engine.dispose()


def _transact(engine: Engine, work: Callable[[Connection], T]) -> T:
    try:
        with engine.begin() as connection:
            return work(connection)
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        log.warning("the database failed", extra={"reason": str(error).split("\n")[0]})
        raise Unavailable(
            "the server's database does not answer", hint="try again in a moment", is_unsent=True
        ) from error


def make_engine(url: str, *, busy_s: float = BUSY_S) -> Engine:
    """busy_s: how long to wait for a lock on SQLite's file.

    Errors: InvalidInput for what is no database URL of a kind that we know.
    """
    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise InvalidInput(
            f"{url!r} is not the URL of a database", hint="as in sqlite:////var/lib/wrenn/wrenn.db"
        ) from error
    if parsed.get_backend_name() != "sqlite":
        return _server_engine(parsed)
    if not parsed.database or parsed.database == ":memory:":
        raise InvalidInput(f"{url!r} names no file", hint="as in sqlite:////var/lib/wrenn/wrenn.db")
    return _sqlite_engine(Path(parsed.database), busy_s)


def _server_engine(url: URL) -> Engine:
    try:
        return create_engine(url, pool_pre_ping=True, pool_size=THREADS)
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        raise InvalidInput(
            f"this server can't speak to {url.drivername}: {error}",
            hint="install that database's driver beside it",
        ) from error


def _sqlite_engine(path: Path, busy_s: float) -> Engine:
    """mode=rw: a database that is gone is an error, and not made anew, empty."""
    engine = create_engine(
        f"sqlite:///file:{path}?mode=rw&uri=true",
        connect_args={"timeout": busy_s, "check_same_thread": False},
        pool_size=THREADS,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    event.listen(engine, "checkout", _FileCheck(path))
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transactions would begin too late, after the reads that a change rests on.
    connection.isolation_level = None
    cursor = connection.cursor()
    # FULL: a commit that was answered for survives a loss of power.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Writers wait for each other at their beginning, where nothing needs undoing yet."""
    is_read = connection.get_execution_options().get("is_read", False)
    connection.exec_driver_sql("BEGIN" if is_read else "BEGIN IMMEDIATE")


class _FileCheck:
    """Holds a connection to its file: one that was removed or replaced would swallow writes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, _connection: Any, record: Any, _proxy: Any) -> None:
        try:
            found = self._path.stat()
        except OSError as error:
            raise DisconnectionError(f"{self._path}: {error.strerror}") from error
        now = (found.st_dev, found.st_ino)
        if record.info.setdefault("file", now) != now:
            raise DisconnectionError(f"{self._path} was replaced")
