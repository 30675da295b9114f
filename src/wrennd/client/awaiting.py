"""`AsyncClient`: the server's API as methods to be awaited."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from wrennd.client import calls, flows, http
from wrennd.client.calls import Call
from wrennd.client.flows import Flow, Pause
from wrennd.client.frames import opening
from wrennd.client.sessions import AsyncSession
from wrennd.core.model import Command

P = ParamSpec("P")
T = TypeVar("T")
CHUNK_BYTES = 256 * 1024


def _calls(
    describe: Callable[P, Call[T]],
) -> "Callable[Concatenate[AsyncClient, P], Awaitable[T]]":
    """A method that makes the call which `describe` describes."""

    async def method(client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client.send(describe(*args, **kwargs))

    method.__doc__, method.__name__ = describe.__doc__, describe.__name__
    return method


def _goes(describe: Callable[P, Flow[T]]) -> "Callable[Concatenate[AsyncClient, P], Awaitable[T]]":
    """A method that goes through the flow which `describe` describes."""

    async def method(client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client.follow(describe(*args, **kwargs))

    method.__doc__, method.__name__ = describe.__doc__, describe.__name__
    return method


class AsyncClient:
    """As `Client`, for one event loop."""

    create = _goes(flows.create)
    pause = _goes(flows.pause)
    resume = _goes(flows.resume)
    fork = _goes(flows.fork)
    destroy = _goes(flows.destroy)
    snapshot = _goes(flows.snapshot)
    list = _goes(flows.listed)
    settled = _goes(flows.settled)
    begin_create = _calls(calls.create)
    get = _calls(calls.get)
    page = _calls(calls.page)
    extend = _calls(calls.extend)
    ping = _calls(calls.ping)
    metrics = _calls(calls.metrics)
    logs = _calls(calls.logs)
    timings = _calls(calls.timings)
    events = _calls(calls.events)
    exec = _calls(calls.exec)
    start = _calls(calls.start)
    processes = _calls(calls.processes)
    kill_process = _calls(calls.kill_process)
    read_file = _calls(calls.read_file)
    write_file = _calls(calls.write_file)
    list_files = _calls(calls.list_files)
    stat = _calls(calls.stat)
    make_directory = _calls(calls.make_directory)
    remove = _calls(calls.remove)
    templates = _calls(calls.templates)
    template = _calls(calls.template)
    delete_template = _calls(calls.delete_template)
    delete_snapshot = _calls(calls.delete_snapshot)
    hosts = _calls(calls.hosts)
    space = _calls(calls.space)
    prune = _calls(calls.prune)
    keys = _calls(calls.keys)
    create_key = _calls(calls.create_key)
    revoke_key = _calls(calls.revoke_key)

    def __init__(self, base_url: str = "", api_key: str = "") -> None:
        self.server = http.Server.of(base_url, api_key)
        self._http = httpx.AsyncClient(**self.server.options)

    async def send(self, call: Call[T]) -> T:
        """Make one call. Errors: those of `core.errors`; Unavailable when no server answers."""
        try:
            response = await self._http.request(**http.request(call))
        except httpx.HTTPError as error:
            http.raise_for(error, self.server)
        return call.read(http.answer(response))

    async def follow(self, flow: Flow[T]) -> T:
        """Carry out what takes several calls."""
        back: Any = None
        failed: Exception | None = None
        with contextlib.closing(flow):
            while True:
                try:
                    step = flow.throw(failed) if failed else flow.send(back)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                back = failed = None
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    continue
                try:
                    back = await self.send(step)
                except calls.FAILURES as error:
                    failed = error

    @asynccontextmanager
    async def command(self, sandbox_id: str, command: Command) -> AsyncIterator[AsyncSession]:
        """Run a command whose output comes as it is written, and that takes input. It ends with
        the block. With a terminal it outlives the block, unless it is killed."""
        async with AsyncSession.open(self.server, opening(sandbox_id, command)) as session:
            yield session

    @asynccontextmanager
    async def download(
        self, sandbox_id: str, path: str, *, user: str = "root"
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A file's content in pieces, however long it is."""
        call = calls.read_file(sandbox_id, path, user=user)
        try:
            async with self._http.stream(**http.request(call)) as response:
                if not response.is_success:
                    raise http.error_of(response.status_code, await response.aread())
                yield response.aiter_bytes(CHUNK_BYTES)
        except httpx.HTTPError as error:
            http.raise_for(error, self.server)

    async def upload(
        self, sandbox_id: str, path: str, content: AsyncIterable[bytes], *, user: str = "root"
    ) -> int:
        """Write a file of pieces, however long it is; how many bytes it has."""
        call = calls.write_file(sandbox_id, path, b"", user=user)
        try:
            response = await self._http.request(**http.request(call) | {"content": content})
        except httpx.HTTPError as error:
            http.raise_for(error, self.server)
        return call.read(http.answer(response))

    async def close(self) -> None:
        """May be called twice."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
