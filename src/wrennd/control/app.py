"""The server's application: its parts, routes and failures put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from wrennd import control
from wrennd.control import http_errors, web
from wrennd.control.agent_client import AgentClient
from wrennd.control.routes import inside, sandboxes, system
from wrennd.control.services import Services
from wrennd.control.settings import Settings
from wrennd.control.store.database import Database


def create_app(settings: Settings, database: Database, agent: AgentClient) -> FastAPI:
    """An ASGI application. It closes the agent at its end; the database stays the caller's."""
    services = Services.of(settings, database, agent)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with services.serving():
            yield

    app = FastAPI(
        title="Wrenn",
        description=control.__doc__ or "",
        version="1",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.services = services
    http_errors.install(app)
    app.router.routes.extend(web.routes())
    app.include_router(system.router)
    app.include_router(sandboxes.router)
    app.include_router(inside.router("/v1/sandboxes", "inside sandboxes"))
    return app
