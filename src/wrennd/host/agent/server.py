"""The agent's life: lock, adoption, socket, and an end that loses nothing."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from socket import socket

import uvicorn

from wrennd.core.deadline import Deadline
from wrennd.core.errors import AlreadyExists, Error
from wrennd.gen.hostagent.hostagent_connect import HostAgentServiceASGIApplication
from wrennd.host import record
from wrennd.host.agent import peers
from wrennd.host.agent.activity import Activity
from wrennd.host.agent.admission import Admission
from wrennd.host.agent.catalogue import Catalogue
from wrennd.host.agent.departures import Departures
from wrennd.host.agent.errors import Translating
from wrennd.host.agent.expiry import ExpiryLoop
from wrennd.host.agent.facts import HostFacts
from wrennd.host.agent.files import Files
from wrennd.host.agent.guests import Guests
from wrennd.host.agent.measuring import SAMPLE_S, Measuring
from wrennd.host.agent.operations import Kind, Operations
from wrennd.host.agent.options import Options
from wrennd.host.agent.processes import Processes
from wrennd.host.agent.sandboxes import Sandboxes
from wrennd.host.agent.service import Parts, Service
from wrennd.host.agent.streams import Streams
from wrennd.host.agent.watch import Watch
from wrennd.host.local import LocalSandboxes
from wrennd.host.reclaim import reclaim, reclaim_one
from wrennd.linux import files
from wrennd.storage.layout import Layout

log = logging.getLogger(__name__)
MAX_REQUEST_BYTES = 20 << 20  # the largest is a command with its input
KEEP_ALIVE_S = 75
STREAMS_END_S = 5.0
SWEEP_S = 60.0
AGAIN_S = 1.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(options: Options) -> None:
    """Serve until SIGTERM or SIGINT. Errors: AlreadyExists when an agent serves this already."""
    for number in SIGNALS:
        # Until it serves there is nothing to be finished, and what it holds is let go of.
        signal.signal(number, lambda *_: sys.exit(0))
    local = LocalSandboxes(options.config, log.info, settles=False)
    with _alone(local.layout):
        departures = Departures(local.layout.departures)
        _settle_all(local, departures)
        with peers.listening(options.socket) as listener:
            left = asyncio.run(Agent(options, local, departures).serve(listener))
    if left:
        # Their threads can't be ended; what they do is finished or undone by the next start.
        log.warning("ended with operations running", extra={"operations": left})
        sys.stderr.flush()
        os._exit(0)


def _settle_all(local: LocalSandboxes, departures: Departures) -> None:
    """Finish or undo what was half done, remove what belongs to nothing; the rest lives on."""
    changed = reclaim(local.layout, local.network)
    for sandbox_id in changed:
        if not local.layout.sandbox(sandbox_id).data.exists():
            departures.add(sandbox_id, record.RECLAIM)
    if changed:
        log.info("settled what others had left", extra={"sandboxes": changed})


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """Be the one agent of an installation."""
    lock = os.open(layout.agent_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not files.try_lock(lock):
            raise AlreadyExists(
                f"another host agent serves {layout.data_dir}",
                hint="stop it, or give another --data-dir",
            )
        yield
    finally:
        os.close(lock)


async def _lasting(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run it until it is cancelled: what breaks is logged, and begun anew."""
    while True:
        try:
            await run()
        except Exception:
            log.exception("%s broke off", name)
        await asyncio.sleep(AGAIN_S)


class _Server(uvicorn.Server):
    """As uvicorn's, but signals are ours."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Agent:
    """All parts of one agent, and what runs beside its calls."""

    def __init__(self, options: Options, local: LocalSandboxes, departures: Departures) -> None:
        self._options = options
        self._local = local
        layout = local.layout
        catalogue, activity = Catalogue(layout), Activity()
        admission = Admission(layout, catalogue, options.mem_overcommit)
        guests = Guests(local, activity)
        overlay = options.config.overlay
        self._parts = Parts(
            facts=HostFacts(options.config, layout),
            catalogue=catalogue,
            admission=admission,
            departures=departures,
            sandboxes=Sandboxes(local, catalogue, admission, activity, departures, overlay),
            processes=Processes(guests),
            files=Files(guests),
            activity=activity,
            measuring=Measuring(layout, catalogue),
            operations=Operations(),
            streams=Streams(),
        )
        self._watch = Watch(layout, catalogue, self._settle)
        self._expiry = ExpiryLoop(
            catalogue, activity, guests, self._parts.sandboxes, self._parts.operations
        )

    async def serve(self, listener: socket) -> int:
        """Until a signal; how many operations had not ended in time then."""
        stop = asyncio.Event()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        server = _Server(self._config())
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(_lasting(name, work))
                for name, work in (
                    ("watch", self._watch.run),
                    ("expiry", self._expiry.run),
                    ("metrics", self._measure),
                    ("sweep", self._sweep),
                )
            ]
            serving = group.create_task(server.serve(sockets=[listener]))
            log.info("serving", extra={"socket": str(self._options.socket)})
            await stop.wait()
            log.info("stopping")
            deadline = Deadline.after(self._options.stop_timeout_s)
            for task in beside:
                task.cancel()
            self._parts.operations.refuse()
            self._parts.streams.close()
            server.should_exit = True
            await serving
        left = await self._parts.operations.close(deadline.remaining_s)
        await asyncio.to_thread(self._parts.streams.join, Deadline.after(STREAMS_END_S))
        return left

    def _config(self) -> uvicorn.Config:
        app = HostAgentServiceASGIApplication(
            Service(self._parts),
            interceptors=[Translating()],
            read_max_bytes=MAX_REQUEST_BYTES,
            compressions=[],
        )
        return uvicorn.Config(
            app,
            http=peers.protocol_for({0, os.geteuid(), *self._options.uids}),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=round(self._options.stop_timeout_s),
        )

    async def _measure(self) -> None:
        while True:
            await self._parts.operations.call(self._parts.measuring.sample, Kind.LOOKS)
            await asyncio.sleep(SAMPLE_S)

    async def _sweep(self) -> None:
        """What commands that were killed beside us have left."""
        while True:
            await asyncio.sleep(SWEEP_S)
            await self._parts.operations.call(
                lambda: _settle_all(self._local, self._parts.departures), Kind.ENDS
            )

    async def _settle(self, sandbox_id: str) -> None:
        """One that lost its VMM; whoever is at work on it does it himself."""

        def work() -> None:
            try:
                reclaim_one(self._local.layout, self._local.network, sandbox_id)
            except (OSError, Error) as error:  # the next sweep tries again
                log.warning("can't be settled", extra={"sandbox": sandbox_id, "why": str(error)})

        await self._parts.operations.call(work, Kind.ENDS)
