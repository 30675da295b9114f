"""Who wants to know when a sandbox does not run any more."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wrennd.control.bus import Bus, Told
from wrennd.control.states import RowState

# Neither running nor on its way to it.
ENDED = frozenset(
    {
        RowState.PAUSED,
        RowState.ERROR,
        RowState.DESTROYING,
        RowState.STOPPED,
        RowState.MISSING,
    }
)


class Ends:
    """For one event loop."""

    def __init__(self, bus: Bus) -> None:
        self._acts: dict[str, list[Callable[[], None]]] = {}
        bus.watch(self._told)

    @contextmanager
    def call(self, sandbox_id: str, act: Callable[[], None]) -> Iterator[None]:
        """Within the block `act` is called whenever the sandbox has ended. It may not fail."""
        acts = self._acts.setdefault(sandbox_id, [])
        acts.append(act)
        try:
            yield
        finally:
            acts.remove(act)
            if not acts:
                self._acts.pop(sandbox_id, None)

    @contextmanager
    def of(self, sandbox_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the sandbox has ended."""
        event = asyncio.Event()
        with self.call(sandbox_id, event.set):
            yield event

    def _told(self, news: Told) -> None:
        if news.sandbox is not None and news.sandbox.state in ENDED:
            for act in list(self._acts.get(news.sandbox.id, ())):
                act()
