"""`python -m wrennd.control`: the control plane as a program, until SIGTERM or Ctrl-C."""

import asyncio
import faulthandler
import logging
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Literal

import uvicorn
from fastapi import FastAPI

from wrennd.control.admin_key import ensure_admin_key
from wrennd.control.agent_client import AgentClient
from wrennd.control.app import create_app
from wrennd.control.connections import Connection, Socket, keep_alive
from wrennd.control.edge_service import behind_edge
from wrennd.control.services import Services
from wrennd.control.settings import Settings, split_listen
from wrennd.control.store.database import Database
from wrennd.control.store.migrate import migrate
from wrennd.core.config import Config
from wrennd.core.errors import Error
from wrennd.core.log import configure

BACKLOG = 1024
STOP_S = 8  # for requests that run; what they began goes on in the host agent
FRAME_BYTES = 1 << 20

log = logging.getLogger("wrennd.control")


def main() -> None:
    faulthandler.enable()  # a crash in a C part says where, on stderr
    settings = Settings.from_arguments(sys.argv[1:])
    config = Config.from_environ(log_level="info")
    form: Literal["console", "json"] = "json" if config.log_form == "json" else "console"
    _allow_connections()
    configure(level=config.log_level, form=form)
    for chatty in ("alembic", "uvicorn", "websockets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    migrate(settings.database)
    database = Database(settings.database, answer_s=settings.bounds.database_s)
    try:
        ensure_admin_key(database, settings.key_file)
        with listening(settings.listen) as bound:
            asyncio.run(serve(settings, database, bound))
    finally:
        database.close()


def _allow_connections() -> None:
    """As many as this process may ever have: each takes a descriptor, one in a stream two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def listening(listen: str) -> socket.socket:
    """A bound socket: from here on callers are kept waiting, not refused. Errors: OSError."""
    host, port = split_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named: asyncio turns Nagle's algorithm off on such sockets only, which
    # costs every answer 40 ms else.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with ExitStack() as held:
        held.enter_context(bound)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        keep_alive(bound)
        bound.listen(BACKLOG)
        held.pop_all()
    return bound


class _Server(uvicorn.Server):
    """uvicorn's, which at its end waits for answers: those that have no end are ended first."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end_streams()
        await super().shutdown(sockets)


def serving_config(app: FastAPI) -> uvicorn.Config:
    """How an application of `create_app` is served, with the proxy before it."""
    services: Services = app.state.services
    bounds = services.settings.bounds
    return uvicorn.Config(
        behind_edge(app, services),
        http=partial(Connection, head_s=bounds.head_s),  # type: ignore[arg-type]  # it is called
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_S,
        ws=Socket,
        ws_ping_interval=bounds.ping_s,
        ws_ping_timeout=bounds.ping_s,
        ws_max_size=FRAME_BYTES,
        lifespan="on",
    )


async def serve(settings: Settings, database: Database, bound: socket.socket) -> None:
    app = create_app(settings, database, AgentClient(settings.agent))
    server = _Server(serving_config(app), app.state.services.bus.close)
    log.info("the control plane listens", extra={"address": settings.listen})
    await server.serve([bound])
    log.info("the control plane ends")


if __name__ == "__main__":
    try:
        main()
    except Error as error:
        hint = f" ({error.hint})" if error.hint else ""
        sys.exit(f"wrennd.control: {error}{hint}")
    except OSError as error:
        sys.exit(f"wrennd.control: {error}")
