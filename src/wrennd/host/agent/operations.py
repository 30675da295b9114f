"""Operations: what runs in a worker thread to its end, whether its caller stays or not.

Each kind has a pool of its own, so that many of one kind keep no other waiting. For the loop's
thread, all of it.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from wrennd.core.errors import Error, HostUnsuitable
from wrennd.host.agent.keys import Keys

log = logging.getLogger(__name__)
T = TypeVar("T")
_CPUS = os.cpu_count() or 1


class Kind(StrEnum):
    """STARTS make VMs, STOPS write snapshots: more at once than there are CPUs for makes each of
    them slower, and lets deadlines pass. ENDS may wait for others to be done, CALLS for guests;
    LOOKS wait for nobody."""

    STARTS = "starts"
    STOPS = "stops"
    ENDS = "ends"
    CALLS = "calls"
    LOOKS = "looks"


WORKERS = {
    Kind.STARTS: max(4, 2 * _CPUS),
    Kind.STOPS: max(4, 2 * _CPUS),
    Kind.ENDS: 32,
    Kind.CALLS: 64,
    Kind.LOOKS: 8,
}


@dataclass(frozen=True)
class Wanted:
    """What is asked for: which method of which sandbox, with which content; `key` may be empty."""

    method: str
    sandbox: str
    kind: Kind
    key: str = ""
    content: bytes = b""


@dataclass
class Operations:
    """The pools, and what runs in them."""

    keys: Keys = field(default_factory=Keys)
    _pools: dict[Kind, ThreadPoolExecutor] = field(default_factory=dict)
    _tasks: "set[asyncio.Task[Any]]" = field(default_factory=set)
    _is_closing: bool = False

    def __post_init__(self) -> None:
        self._pools = {
            kind: ThreadPoolExecutor(count, thread_name_prefix=kind)
            for kind, count in WORKERS.items()
        }

    async def call(self, work: Callable[[], T], kind: Kind = Kind.CALLS) -> T:
        """Something short, in a thread; a caller that leaves does not stop it."""
        return await asyncio.get_running_loop().run_in_executor(self._pools[kind], work)

    async def run(self, wanted: Wanted, work: Callable[[], T]) -> T:
        """An operation, or the answer of the one that had its key.

        Errors: HostUnsuitable while the agent is being stopped; InvalidInput for a key that was
        another call's; those of the work.
        """
        content = b"\0".join((wanted.method.encode(), wanted.content))
        task = self.keys.find(wanted.key, content)
        if task is None:
            if self._is_closing:
                raise HostUnsuitable("the host agent is being stopped", hint="try again soon")
            task = asyncio.create_task(self._worked(wanted, work))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            self.keys.add(wanted.key, content, task)
        result: T = await asyncio.shield(task)
        return result

    async def _worked(self, wanted: Wanted, work: Callable[[], T]) -> T:
        began = time.monotonic()
        bound = {"method": wanted.method, "sandbox": wanted.sandbox}
        try:
            pool = self._pools[wanted.kind]
            result = await asyncio.get_running_loop().run_in_executor(pool, work)
        except Error as error:
            took = round((time.monotonic() - began) * 1000, 1)
            log.info("failed", extra={**bound, "ms": took, "code": error.code, "why": str(error)})
            raise
        took = round((time.monotonic() - began) * 1000, 1)
        log.info("done", extra={**bound, "ms": took, **_phases(result)})
        return result

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at also when its caller has left

    def refuse(self) -> None:
        """Take no more."""
        self._is_closing = True

    async def close(self, timeout_s: float) -> int:
        """Take no more, and wait for those that run; how many have not ended in time."""
        self.refuse()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        return len(self._tasks)


def _phases(result: object) -> dict[str, object]:
    """The phases of an answer that has some, for the log."""
    phases = getattr(result, "phases", ())
    return {phase.name: phase.ms for phase in phases}
