"""Between threads that wait for guests and the loop that talks to callers: bounded streams.

A stream is one thread that runs a plain function; what it sends waits in the loop for the caller to
take it, and at most `capacity` pieces do. A caller that leaves wakes the thread, which ends what it
has begun. Threads are counted: `Streams.MAX` at once.
"""

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from wrennd.core.deadline import Deadline
from wrennd.core.errors import HostUnsuitable, NoCapacity

T = TypeVar("T")


class CallerLeft(Exception):
    """Nobody takes what is sent any more: unwinds the stream's thread."""


class Outlet(Generic[T]):
    """What a stream's thread sends into. Made in the loop; `send` belongs to the thread."""

    def __init__(self, capacity: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: deque[T | _End] = deque()
        self._has_items = asyncio.Event()
        self._room = threading.Semaphore(capacity)
        # Guards _is_left and _wakes.
        self._lock = threading.Lock()
        self._is_left = False
        self._wakes: list[Callable[[], None]] = []

    def send(self, item: T) -> None:
        """Waits until there is room. Errors: CallerLeft."""
        self._room.acquire()
        self._pass_on(item)

    def on_leave(self, wake: Callable[[], None]) -> None:
        """Called when the caller leaves, from another thread; at once when he has."""
        with self._lock:
            self._wakes.append(wake)
            is_left = self._is_left
        if is_left:
            wake()

    def end(self, error: BaseException | None) -> None:
        """Nothing follows. Takes no room: it is not the caller's to hold up."""
        with contextlib.suppress(CallerLeft):
            self._pass_on(_End(error))

    def _pass_on(self, item: "T | _End") -> None:
        with self._lock:
            if self._is_left:
                raise CallerLeft
        try:
            self._loop.call_soon_threadsafe(self._arrive, item)
        except RuntimeError:  # the loop has ended, and with it the caller
            raise CallerLeft from None

    def _arrive(self, item: "T | _End") -> None:
        self._items.append(item)
        self._has_items.set()

    async def receive(self) -> AsyncIterator[T]:
        """All that is sent. Errors: what the thread ended with."""
        while True:
            while not self._items:
                self._has_items.clear()
                await self._has_items.wait()
            item = self._items.popleft()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            self._room.release()
            yield item

    def leave(self) -> None:
        """The caller is gone."""
        with self._lock:
            self._is_left = True
            wakes = list(self._wakes)
        self._room.release()
        for wake in wakes:
            wake()


@dataclass(frozen=True)
class _End:
    error: BaseException | None


class Inlet:
    """What a caller sends, as a thread reads it: an iterator of bytes.

    `take`, `put` and `finish` belong to the loop. A caller that breaks off is an error in the
    thread.
    """

    def __init__(self, capacity: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(capacity)

    async def put(self, data: bytes) -> None:
        await self._room.acquire()
        self._items.put(data)

    async def take(self, chunks: AsyncIterator[bytes]) -> None:
        """All of them, then their end; or what they broke off with."""
        try:
            async for chunk in chunks:
                await self.put(chunk)
        except Exception as error:  # noqa: BLE001 - the thread that reads is told
            self.finish(error)
        else:
            self.finish()

    def finish(self, error: BaseException | None = None) -> None:
        self._items.put(error)

    def __iter__(self) -> Iterator[bytes]:
        while (item := self._items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._room.release)


class Streams:
    """The threads of all streams that are open."""

    MAX = 1024

    def __init__(self) -> None:
        # Guards _threads; the outlets are the loop's.
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._outlets: set[Outlet[Any]] = set()
        self._is_closed = False

    async def run(self, work: Callable[[Outlet[T]], None], *, capacity: int) -> AsyncGenerator[T]:
        """What `work` sends, in a thread of its own. Errors: NoCapacity, and those of `work`."""
        if self._is_closed:
            raise HostUnsuitable("the host agent is being stopped", hint="try again soon")
        outlet: Outlet[T] = Outlet(capacity)

        def run() -> None:
            error: BaseException | None = None
            try:
                work(outlet)
            except CallerLeft:
                pass
            except BaseException as raised:  # noqa: BLE001 - the caller is told
                error = raised
            finally:
                outlet.end(error)
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name="stream", daemon=True)
        with self._lock:
            if len(self._threads) >= self.MAX:
                raise NoCapacity(f"{self.MAX} streams are open on this host: that is the limit")
            self._threads.add(thread)
        thread.start()
        self._outlets.add(outlet)
        try:
            async for item in outlet.receive():
                yield item
        finally:
            self._outlets.discard(outlet)
            outlet.leave()

    async def one(self, work: Callable[[Outlet[T]], None]) -> T:
        """The one thing that `work` sends. Errors: as of `run`."""
        async with contextlib.aclosing(self.run(work, capacity=1)) as results:
            async for result in results:
                return result
        raise AssertionError("a stream that was to answer has not")

    def close(self) -> None:
        """End all, and take no more: their callers are told so."""
        self._is_closed = True
        for outlet in self._outlets:
            outlet.end(HostUnsuitable("the host agent is being stopped"))

    def join(self, deadline: Deadline) -> int:
        """Wait for the threads of callers that have left; how many have not ended in time."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(deadline.remaining_s)
        return sum(thread.is_alive() for thread in threads)
