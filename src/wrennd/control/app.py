"""The server's application: its parts, routes and failures put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from wrennd import control
from wrennd.control import http_errors, web
from wrennd.control.agent_client import AgentClient
from wrennd.control.lasting import BreakingOff
from wrennd.control.limits import BodyLimit, Counting
from wrennd.control.routes import (
    administration,
    capsules,
    feed,
    files,
    inside,
    sandboxes,
    snapshots,
    space,
    streams,
    system,
    terminals,
)
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
    app.include_router(capsules.router)
    for prefix, tag in (("/v1/sandboxes", "sandboxes"), ("/v1/capsules", "capsules")):
        app.include_router(inside.router(prefix, f"inside {tag}"))
        app.include_router(files.router(prefix, f"files in {tag}"))
        app.include_router(streams.router(prefix))
        app.include_router(terminals.router(prefix))
    for module in (snapshots, administration, space, feed):
        app.include_router(module.router)
    bounds = settings.bounds
    app.add_middleware(BreakingOff)
    app.add_middleware(BodyLimit, idle_s=bounds.body_s, taken_s=bounds.taken_s)
    app.add_middleware(Counting, metrics=services.metrics)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]  # as FastAPI wants it
    return app


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, but its 422 is our 400."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            found["components"]["schemas"].pop(name, None)
        app.openapi_schema = found
    return app.openapi_schema
