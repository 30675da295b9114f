"""The parts of one server, made once and handed to its routes as `app.state.services`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Self

from fastapi import Request
from starlette.requests import HTTPConnection

from wrennd.control.agent_client import AgentClient
from wrennd.control.auth import Authentication
from wrennd.control.bus import Bus
from wrennd.control.creation import Creation
from wrennd.control.ends import Ends
from wrennd.control.forks import Forks
from wrennd.control.metrics import Metrics
from wrennd.control.reconciler import Reconciler
from wrennd.control.sandboxes import Operations
from wrennd.control.settings import Settings
from wrennd.control.store import hosts, keys
from wrennd.control.store.database import Database
from wrennd.control.templates import Templates
from wrennd.control.work import Work


@dataclass(frozen=True, kw_only=True)
class Services:
    """What routes use. `serving()` is the time in which its background work runs."""

    settings: Settings
    database: Database
    agent: AgentClient
    authentication: Authentication
    operations: Operations
    creation: Creation
    forks: Forks
    templates: Templates
    reconciler: Reconciler
    work: Work
    bus: Bus
    ends: Ends
    metrics: Metrics

    @classmethod
    def of(cls, settings: Settings, database: Database, agent: AgentClient) -> Self:
        """`serving()` closes the agent at its end; the database stays the caller's."""
        work, bus, metrics = Work(), Bus(), Metrics()
        operations = Operations(
            database=database,
            agent=agent,
            work=work,
            bus=bus,
            metrics=metrics,
            bounds=settings.bounds,
        )
        templates = Templates(operations)
        reconciler = Reconciler(
            operations, templates, every_s=settings.reconcile_s, grace_s=settings.grace_s
        )
        return cls(
            settings=settings,
            database=database,
            agent=agent,
            authentication=Authentication(database),
            operations=operations,
            creation=Creation(operations, templates),
            forks=Forks(operations),
            templates=templates,
            reconciler=reconciler,
            work=work,
            bus=bus,
            ends=Ends(bus),
            metrics=metrics,
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Reconciles meanwhile; at the end waits a moment for operations that run."""
        await self.database.run(lambda c: hosts.ensure(c, hosts.LOCAL))
        await self.database.run(lambda c: keys.ensure_project(c, keys.DEFAULT_PROJECT))
        async with AsyncExitStack() as held:
            held.push_async_callback(self.agent.close)
            held.push_async_callback(self.work.close)
            held.callback(self.bus.close)
            loop = asyncio.create_task(self.reconciler.run(), name="reconciler")
            held.push_async_callback(_ended, loop)
            yield


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def services_of(request: Request) -> Services:
    """The dependency of routes."""
    return of_connection(request)


def of_connection(connection: HTTPConnection) -> Services:
    found: Services = connection.app.state.services
    return found
