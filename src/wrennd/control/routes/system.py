"""/health and /metrics: for whoever watches the server; without a key, and without secrets."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy import text

from wrennd.control.routes.parameters import ServicesOf
from wrennd.control.services import Services
from wrennd.core.errors import Error
from wrennd.gen.hostagent import hostagent_pb as pb

ASK_S = 3

router = APIRouter(tags=["server"])


class HealthShape(BaseModel):
    status: Literal["ok", "unavailable"]
    database: Literal["ok", "unavailable"]
    hosts: dict[str, Literal["ok", "unavailable"]]


@router.get("/health", responses={503: {"model": HealthShape}})
async def health(services: ServicesOf, response: Response) -> HealthShape:
    """Ready: the database takes transactions, the host answers, and what it said was compared with
    the database once."""
    database, host = await asyncio.gather(_database(services), _host(services))
    is_ready = database and host and services.reconciler.has_run
    response.status_code = 200 if is_ready else 503
    return HealthShape(
        status="ok" if is_ready else "unavailable",
        database="ok" if database else "unavailable",
        hosts={"local": "ok" if host else "unavailable"},
    )


async def _database(services: Services) -> bool:
    try:
        async with asyncio.timeout(ASK_S):
            await services.database.read(lambda c: c.execute(text("SELECT id FROM hosts")).first())
    except (Error, TimeoutError):
        return False
    return True


async def _host(services: Services) -> bool:
    try:
        await services.agent.rpc.get_host(pb.GetHostRequest(), timeout_ms=ASK_S * 1000)
    except Error:
        return False
    return True


@router.get("/metrics", response_class=Response)
async def metrics(services: ServicesOf) -> Response:
    """For Prometheus."""
    return Response(services.metrics.render(), media_type="text/plain; version=0.0.4")
