"""The proxy before the application: it learns of sandboxes from the database, and of their ends
from the same place as everybody else."""

import asyncio
import logging
from typing import Any

from wrennd.control.bus import Told
from wrennd.control.edge import App, Edge
from wrennd.control.services import Services
from wrennd.control.states import RowState
from wrennd.control.store import sandboxes
from wrennd.core.errors import Error
from wrennd.gen.hostagent import hostagent_pb as pb

PING_MS = 10_000
log = logging.getLogger(__name__)
# While it is frozen for a snapshot its connections wait; they are not lost.
REACHABLE = frozenset({RowState.RUNNING, RowState.SNAPSHOTTING})


def behind_edge(app: App, services: Services) -> Edge:
    """The application with the proxy before it."""
    edge = Edge(app, Known(services), services.settings.domain)

    def told(news: Told) -> None:
        if news.sandbox is not None and news.sandbox.state not in REACHABLE:
            edge.cut(news.sandbox.id)

    services.bus.watch(told)
    return edge


class Known:
    """`edge.Backend` over what the server knows. For one event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._pings: set[asyncio.Task[Any]] = set()

    async def find_address(self, sandbox_id: str) -> str:
        row = await self._services.database.read(lambda c: sandboxes.get(c, sandbox_id))
        return row.address if row is not None and row.state in REACHABLE else ""

    def touch(self, sandbox_id: str) -> None:
        task = asyncio.create_task(self._ping(sandbox_id), name=f"ping of {sandbox_id}")
        self._pings.add(task)
        task.add_done_callback(self._pings.discard)

    async def _ping(self, sandbox_id: str) -> None:
        try:
            request = pb.PingSandboxRequest(sandbox_id=sandbox_id)
            await self._services.agent.rpc.ping_sandbox(request, timeout_ms=PING_MS)
        except Error as error:  # what passes tells its own end
            log.debug("a sandbox in use was not pinged", extra={"error": str(error)})
