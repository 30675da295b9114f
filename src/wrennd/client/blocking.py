"""`Client`: the server's API as plain methods."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from wrennd.client import calls, flows, http
from wrennd.client.calls import Call
from wrennd.client.flows import Flow, Pause
from wrennd.client.frames import opening
from wrennd.client.sessions import BlockingSession
from wrennd.core.model import Command

P = ParamSpec("P")
T = TypeVar("T")
CHUNK_BYTES = 256 * 1024


def _calls(describe: Callable[P, Call[T]]) -> "Callable[Concatenate[Client, P], T]":
    """A method that makes the call which `describe` describes."""

    def method(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client.send(describe(*args, **kwargs))

    method.__doc__, method.__name__ = describe.__doc__, describe.__name__
    return method


def _goes(describe: Callable[P, Flow[T]]) -> "Callable[Concatenate[Client, P], T]":
    """A method that goes through the flow which `describe` describes."""

    def method(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client.follow(describe(*args, **kwargs))

    method.__doc__, method.__name__ = describe.__doc__, describe.__name__
    return method


class Client:
    """A server, as one key sees it. May be used by several threads.

    base_url and api_key not given: WRENN_BASE_URL and WRENN_API_KEY, then
    ~/.config/wrenn/config.toml. Errors: InvalidInput without a key.
    """

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
        self._http = httpx.Client(**self.server.options)

    def send(self, call: Call[T]) -> T:
        """Make one call. Errors: those of `core.errors`; Unavailable when no server answers."""
        try:
            response = self._http.request(**http.request(call))
        except httpx.HTTPError as error:
            http.raise_for(error, self.server)
        return call.read(http.answer(response))

    def follow(self, flow: Flow[T]) -> T:
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
                    time.sleep(step.seconds)
                    continue
                try:
                    back = self.send(step)
                except calls.FAILURES as error:
                    failed = error

    @contextmanager
    def command(self, sandbox_id: str, command: Command) -> Iterator[BlockingSession]:
        """Run a command whose output comes as it is written, and that takes input. It ends with
        the block. With a terminal it outlives the block, unless it is killed."""
        with BlockingSession.open(self.server, opening(sandbox_id, command)) as session:
            yield session

    @contextmanager
    def download(
        self, sandbox_id: str, path: str, *, user: str = "root"
    ) -> Iterator[Iterator[bytes]]:
        """A file's content in pieces, however long it is."""
        call = calls.read_file(sandbox_id, path, user=user)
        try:
            with self._http.stream(**http.request(call)) as response:
                if not response.is_success:
                    raise http.error_of(response.status_code, response.read())
                yield response.iter_bytes(CHUNK_BYTES)
        except httpx.HTTPError as error:
            http.raise_for(error, self.server)

    def upload(
        self, sandbox_id: str, path: str, content: Iterable[bytes], *, user: str = "root"
    ) -> int:
        """Write a file of pieces, however long it is; how many bytes it has."""
        call = calls.write_file(sandbox_id, path, b"", user=user)
        try:
            response = self._http.request(**http.request(call) | {"content": content})
        except httpx.HTTPError as error:
            http.raise_for(error, self.server)
        return call.read(http.answer(response))

    def close(self) -> None:
        """May be called twice."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
