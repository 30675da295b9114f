"""Engines: how SQLite, which is embedded, and PostgreSQL are opened so that both behave alike.

In both, what changes something waits for the others that do, at its beginning, where nothing needs
undoing yet, and sees all that they did; what only reads waits for nobody and sees one moment. So
what is right on the one is right on the other, and nothing has to be tried again. A wait for a
lock has an end (BUSY_S).
"""

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError

from wrennd.core.errors import InvalidInput

BUSY_S = 5.0
READ_BUSY_S = 0.2  # readers of a write-ahead log wait for nobody but its recovery
CONNECTIONS = 4
CONNECT_S = 5
STATEMENT_S = 20
POSTGRESQL = ("postgresql", "postgresql+psycopg")
# Of the advisory lock that writers hold: any number that others of the same database don't take.
WRITERS_LOCK = 0x7772656E6E
HINT = "as in sqlite:////var/lib/wrenn/wrenn.db or postgresql://user@host/wrenn"


def make_engine(url: str, *, busy_s: float = BUSY_S, statement_s: float = STATEMENT_S) -> Engine:
    """For changes. busy_s: how long to wait for a lock; statement_s: for anything else (0: for
    ever), where there is a server that can be told.

    Errors: InvalidInput for what is no database URL of a kind that we know.
    """
    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        # Not the text itself: there may be a password in it.
        raise InvalidInput("this is not the URL of a database", hint=HINT) from error
    if parsed.get_backend_name() == "postgresql":
        return _postgresql_engine(parsed, _LimitWaits(busy_s, statement_s))
    if parsed.drivername != "sqlite":
        raise InvalidInput(f"{parsed.drivername} is no kind of database that is known", hint=HINT)
    if not parsed.database or parsed.database == ":memory:":
        raise InvalidInput(f"{url!r} names no file", hint=HINT)
    return _sqlite_engine(Path(parsed.database), busy_s)


def make_reader(url: str, engine: Engine) -> Engine:
    """For what changes nothing, over the same database as `engine`."""
    if engine.dialect.name == "sqlite":
        engine = make_engine(url, busy_s=READ_BUSY_S)
        return engine.execution_options(is_read=True)
    return engine.execution_options(
        is_read=True, isolation_level="REPEATABLE READ", postgresql_readonly=True
    )


def _postgresql_engine(url: URL, limit: "_LimitWaits") -> Engine:
    if url.drivername not in POSTGRESQL:
        raise InvalidInput(f"{url.drivername}: PostgreSQL is spoken to by psycopg", hint=HINT)
    try:
        engine = create_engine(
            url.set(drivername=POSTGRESQL[1]),
            pool_pre_ping=True,  # it may have been restarted
            # Readers and writers have as many threads each.
            pool_size=2 * CONNECTIONS,
            connect_args={
                "connect_timeout": CONNECT_S,
                "application_name": "wrenn",
                # A server whose machine is gone is noticed; no effect on Unix sockets.
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "tcp_user_timeout": STATEMENT_S * 1000,
            },
        )
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"PostgreSQL can't be spoken to: {error}", hint="pip install 'wrennd[postgresql]'"
        ) from error
    event.listen(engine, "connect", limit)
    event.listen(engine, "begin", _begin_postgresql)
    return engine


class _LimitWaits:
    """Sets how long a connection's statements may take, and wait for locks."""

    def __init__(self, busy_s: float, statement_s: float) -> None:
        self._limits = {
            "lock_timeout": busy_s,
            "statement_timeout": statement_s,
            "idle_in_transaction_session_timeout": 3 * STATEMENT_S,
        }

    def __call__(self, connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            for name, seconds in self._limits.items():
                cursor.execute(f"SET {name} = {round(seconds * 1000)}")
        connection.commit()


def _begin_postgresql(connection: Connection) -> None:
    if not connection.get_execution_options().get("is_read", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})")


def _sqlite_engine(path: Path, busy_s: float) -> Engine:
    """mode=rw: a database that is gone is an error, and not made anew, empty."""
    engine = create_engine(
        f"sqlite:///file:{path}?mode=rw&uri=true",
        connect_args={"timeout": busy_s, "check_same_thread": False},
        pool_size=CONNECTIONS,
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
