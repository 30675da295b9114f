"""What happens, told to those who listen: the server-sent events of a project.

A listener that does not keep up is dropped: it sees the end of its stream, not a gap.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wrennd.control.store.rows import EventRow, SandboxRow

BACKLOG = 256


@dataclass(frozen=True)
class Told:
    """An event and, where there is one, the sandbox as it is after it."""

    event: EventRow
    sandbox: SandboxRow | None


@dataclass(eq=False)
class Listener:
    """`get` returns None at the end of the stream."""

    project: str
    queue: "asyncio.Queue[Told | None]" = field(default_factory=lambda: asyncio.Queue(BACKLOG + 1))

    async def get(self) -> Told | None:
        return await self.queue.get()


class Bus:
    """Used from the server's event loop alone."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._watchers: list[Callable[[Told], None]] = []

    @property
    def count(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def watch(self, act: Callable[[Told], None]) -> None:
        """`act` is called at once with whatever happens, in any project. It may not fail."""
        self._watchers.append(act)

    def tell(self, event: EventRow, sandbox: SandboxRow | None) -> None:
        for act in self._watchers:
            act(Told(event, sandbox))
        for listener in [each for each in self._listeners if each.project == event.project]:
            if listener.queue.qsize() >= BACKLOG:
                self._drop(listener)
            else:
                listener.queue.put_nowait(Told(event, sandbox))

    @contextmanager
    def listen(self, project: str) -> Iterator[Listener]:
        listener = Listener(project)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        for listener in list(self._listeners):
            self._drop(listener)

    def _drop(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        listener.queue.put_nowait(None)
