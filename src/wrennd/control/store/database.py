"""The way to the database: transactions in threads, and its failures as our errors.

A function that takes a connection is run in one transaction: `await database.run(function)`, or
`read(function)` for what changes nothing. A database that is locked for too long (`engines.py`),
full, gone, silent or broken is Unavailable (503): what was begun is rolled back, and what the host
did meanwhile is found again by reconciling.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from wrennd.control.store.engines import CONNECTIONS, make_engine, make_reader
from wrennd.core.errors import Unavailable

T = TypeVar("T")

log = logging.getLogger(__name__)


class Database:
    """Owns the engine and the threads that use it; `close()` may be called twice.

    answer_s: how long a caller waits for a transaction; None: as long as it takes.
    """

    def __init__(self, url: str, *, answer_s: float | None = None) -> None:
        self._engine = make_engine(url)
        self._reader = make_reader(url, self._engine)
        self._is_embedded = self._engine.dialect.name == "sqlite"
        # Of their own: readers must not queue behind writers that wait for each other.
        self._writers = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="database")
        self._readers = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="database-read")
        self._answer_s = answer_s

    async def run(self, work: Callable[[Connection], T]) -> T:
        """The result of `work`, committed; it runs to its end also when the caller is cancelled.

        Errors: Unavailable; whatever `work` raises, rolled back.
        """
        return await self._answered(self._writers, self.run_here, work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """As `run`, for what changes nothing: it waits for no writer.

        An embedded database is read at once, on the loop: that takes a fraction of a millisecond,
        and the way to a thread and back takes longer than that, on a busy machine tens of them.
        """
        if self._is_embedded:
            return _transact(self._reader, work)
        return await self._answered(self._readers, self._read_here, work)

    def run_here(self, work: Callable[[Connection], T]) -> T:
        """As `run`, in the calling thread."""
        return _transact(self._engine, work)

    def _read_here(self, work: Callable[[Connection], T]) -> T:
        return _transact(self._reader, work)

    async def _answered(
        self,
        threads: ThreadPoolExecutor,
        run: Callable[[Callable[[Connection], T]], T],
        work: Callable[[Connection], T],
    ) -> T:
        """What has begun when the time is over goes on, and may yet be committed."""
        try:
            async with asyncio.timeout(self._answer_s):
                return await asyncio.get_running_loop().run_in_executor(threads, run, work)
        except TimeoutError:
            log.warning("the database says nothing", extra={"seconds": self._answer_s})
            raise _unavailable(is_unsent=False) from None

    def close(self) -> None:
        self._writers.shutdown(wait=True)
        self._readers.shutdown(wait=True)
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
        raise _unavailable(is_unsent=True) from error


def _unavailable(*, is_unsent: bool) -> Unavailable:
    return Unavailable(
        "the server's database does not answer", hint="try again in a moment", is_unsent=is_unsent
    )
