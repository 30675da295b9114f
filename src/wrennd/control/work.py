"""The tasks that go on when their callers leave, and who waits for them at the end.

A task that fails is logged here, whether somebody waits for it or not. `is_busy` tells the
reconciler which sandboxes to leave alone.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

from wrennd.core.errors import Error

CLOSE_S = 5.0
T = TypeVar("T")

log = logging.getLogger(__name__)


class Work:
    """Owns the tasks of one server. Used from its event loop alone."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._busy: Counter[str] = Counter()

    def start(self, sandbox_id: str, doing: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it to its end, as work on that sandbox."""
        task = asyncio.create_task(doing, name=f"work on {sandbox_id}")
        self._tasks.add(task)
        self._busy[sandbox_id] += 1

        def ended(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            self._busy -= Counter({sandbox_id: 1})
            if not task.cancelled():
                _log_failure(sandbox_id, task.exception())

        task.add_done_callback(ended)
        return task

    def is_busy(self, sandbox_id: str) -> bool:
        return self._busy[sandbox_id] > 0

    def busy(self) -> frozenset[str]:
        return frozenset(self._busy)

    async def close(self) -> None:
        """Give what runs a moment; what does not end then is found again by reconciling."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _log_failure(sandbox_id: str, error: BaseException | None) -> None:
    if error is None:
        return
    extra = {"sandbox": sandbox_id, "reason": str(error)}
    if isinstance(error, Error):
        log.info("an operation failed", extra={**extra, "code": error.code})
    else:
        log.error("an operation broke", extra=extra, exc_info=error)


async def within(task: asyncio.Task[T], seconds: float) -> T | None:
    """The task's result if it ends in time, else None: it goes on, also when we are cancelled.

    Errors: the task's.
    """
    done, _ = await asyncio.wait({task}, timeout=seconds)
    return task.result() if done else None
