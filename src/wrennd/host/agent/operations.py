"""Operations: what runs in a worker thread to its end, whether its caller stays or not.

Each kind has a pool of its own, so that many of one kind keep no other waiting. For the loop's
thread, all of it.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from wrennd.core.errors import Error, HostUnsuitable, WrongState
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
    """What is asked for: which method of which sandbox, with which content; `key` may be empty.

    is_last: the sandbox's end: what was asked of it before and has not begun does not begin.
    """

    method: str
    sandbox: str
    kind: Kind
    key: str = ""
    content: bytes = b""
    is_last: bool = False


@dataclass
class _Turn:
    """One operation's place in its pool's queue."""

    wanted: Wanted
    future: "Future[Any] | None" = None
    is_revoked: bool = False

    def revoke(self) -> None:
        """Let it not begin, if it has not."""
        self.is_revoked = self.future is None or self.future.cancel()

    def check(self) -> None:
        """Errors: WrongState when it was revoked."""
        if self.is_revoked:
            raise WrongState(f"sandbox {self.wanted.sandbox} was destroyed before this began")


@dataclass
class Operations:
    """The pools, and what runs in them."""

    keys: Keys = field(default_factory=Keys)
    _pools: dict[Kind, ThreadPoolExecutor] = field(default_factory=dict)
    _tasks: "dict[asyncio.Task[Any], _Turn]" = field(default_factory=dict)
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
            turn = _Turn(wanted)
            task = asyncio.create_task(self._worked(turn, work))
            self._tasks[task] = turn
            task.add_done_callback(self._ended)
            self.keys.add(wanted.key, content, task)
        result: T = await asyncio.shield(task)
        return result

    async def _worked(self, turn: _Turn, work: Callable[[], T]) -> T:
        wanted, began = turn.wanted, time.monotonic()
        bound = {"method": wanted.method, "sandbox": wanted.sandbox}
        try:
            if wanted.is_last:
                await self._clear_way(wanted.sandbox)
            result = await self._in_pool(turn, work)
        except Error as error:
            took = round((time.monotonic() - began) * 1000, 1)
            log.info("failed", extra={**bound, "ms": took, "code": error.code, "why": str(error)})
            raise
        took = round((time.monotonic() - began) * 1000, 1)
        log.info("done", extra={**bound, "ms": took, **_phases(result)})
        return result

    async def _in_pool(self, turn: _Turn, work: Callable[[], T]) -> T:
        turn.check()
        future = self._pools[turn.wanted.kind].submit(work)
        turn.future = future
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            turn.check()
            raise

    async def _clear_way(self, sandbox_id: str) -> None:
        """Revoke the starts of a sandbox that have not begun, and wait for those that have: else it
        would be made behind its end, where there is no record yet that says so."""
        starts = {
            task: turn
            for task, turn in self._tasks.items()
            if turn.wanted.sandbox == sandbox_id and turn.wanted.kind is Kind.STARTS
        }
        for turn in starts.values():
            turn.revoke()
        if starts:
            await asyncio.wait(starts)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.pop(task, None)
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
