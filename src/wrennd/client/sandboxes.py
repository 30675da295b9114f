"""Sandboxes of a server as the commands see them: implements `core/sandboxes.py`."""

import contextlib
import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from wrennd.client.blocking import Client
from wrennd.client.values import Child, Sandbox, Template, Timings
from wrennd.core import timings as measured
from wrennd.core.errors import Error, HostUnsuitable
from wrennd.core.ids import SANDBOX_ID, match_sandbox_id
from wrennd.core.model import Command, SandboxRequest
from wrennd.core.sandboxes import Forked, Listed, ListedTemplate, Running, Shown
from wrennd.core.states import State, require
from wrennd.transfer import download, upload
from wrennd.transfer.guest import Found

SNAPSHOT = "snapshot"


class ServerSandbox:
    """One that runs."""

    def __init__(self, client: Client, sandbox_id: str) -> None:
        self._client = client
        self._id = sandbox_id

    @property
    def id(self) -> str:
        return self._id

    def start(self, command: Command) -> AbstractContextManager[Running]:
        return self._client.command(self._id, command)

    def look(self, path: str, *, user: str) -> Found:
        found = self._client.stat(self._id, path, user=user)
        if found.symlink_target is not None:
            found = self._client.stat(self._id, found.symlink_target, user=user)
        return Found(path=path if path else found.path, kind=found.type, mode=found.mode)

    def upload(self, source: Path, destination: str, *, user: str) -> None:
        upload.upload(self, source, destination, user=user)

    def copy_in(self, source: Path, destination: str, *, user: str) -> None:
        upload.copy_in(self, source, destination, user=user)

    def copy_out(self, source: str, destination: Path, *, user: str) -> None:
        download.copy_out(self, source, destination, user=user)


class ServerSandboxes:
    """Those of a project on a server."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @contextmanager
    def temporary(
        self, wanted: SandboxRequest, timings: measured.Timings
    ) -> Iterator[ServerSandbox]:
        made = self.create(wanted, timings)
        with contextlib.ExitStack() as held:
            held.callback(self.client.destroy, made)
            yield ServerSandbox(self.client, made)

    def create(self, wanted: SandboxRequest, timings: measured.Timings) -> str:
        """Its id is the server's to choose. Who is interrupted leaves none behind."""
        request: dict[str, Any] = {
            "vcpus": wanted.vcpus,
            "memory_mib": wanted.mem_mib,
            "disk_mib": wanted.disk_mib,
            "env": wanted.env,
            "dns": wanted.dns,
            "cold": wanted.is_cold,
            "idempotency_key": wanted.id,
        }
        try:
            made = self.client.create(wanted.template, **request)
        except Error:
            raise
        except BaseException:
            # Only by asking once more do we learn the id; if the server has not heard of it, it
            # makes one now, which goes at once.
            with contextlib.suppress(Error):
                self.client.destroy(self.client.begin_create(wanted.template, **request).id)
            raise
        _note(made.timings, timings)
        return made.id

    @contextmanager
    def connect(self, sandbox_id: str) -> Iterator[ServerSandbox]:
        found = self.client.settled(self.match(sandbox_id))
        require(found.id, _state(found), State.RUNNING, reason=found.error)
        yield ServerSandbox(self.client, found.id)

    def list(self) -> list[Listed]:
        return [_listed(found) for found in reversed(self.client.list())]

    def pause(self, sandbox_id: str, timings: measured.Timings) -> None:
        _note(self.client.pause(self.match(sandbox_id)).timings, timings)

    def resume(
        self,
        sandbox_id: str,
        timings: measured.Timings,
        *,
        cold: bool = False,
        discard: bool = False,
    ) -> None:
        found = self.client.resume(self.match(sandbox_id), cold=cold, discard=discard)
        _note(found.timings, timings)

    def fork(self, sandbox_id: str, count: int, timings: measured.Timings) -> tuple[Forked, ...]:
        found = self.client.fork(self.match(sandbox_id), count)
        _note(found.source.timings, timings)
        return tuple(_forked(child) for child in found.children)

    def kill(self, sandbox_id: str, *, timings: measured.Timings | None = None) -> None:
        found = self.match(sandbox_id)
        self.client.destroy(found)
        if timings is not None:
            self.note_last(found, timings)

    def note_last(self, sandbox_id: str, timings: measured.Timings) -> None:
        """The phases of its last operation, whose answer does not tell them."""
        for operation in self.client.timings(sandbox_id)[:1]:
            _note(Timings(total_ms=operation.total_ms, phases=operation.phases), timings)

    def match(self, sandbox_id: str) -> str:
        """The id that this is, or begins. Errors: NotFound, InvalidInput."""
        if SANDBOX_ID.fullmatch(sandbox_id):
            return sandbox_id
        return match_sandbox_id(sandbox_id, [found.id for found in self.client.list()])


class ServerSnapshots:
    """Snapshot templates of a project on a server."""

    def __init__(self, sandboxes: ServerSandboxes) -> None:
        self._sandboxes = sandboxes
        self._client = sandboxes.client

    def create(
        self,
        sandbox_id: str,
        name: str,
        timings: measured.Timings,
        *,
        ends_paused: bool = False,
    ) -> None:
        found = self._sandboxes.match(sandbox_id)
        self._client.snapshot(found, name, pause=ends_paused)
        self._sandboxes.note_last(found, timings)

    def list(self) -> "list[ListedTemplate]":
        found = (each for each in self._client.templates() if each.kind == SNAPSHOT)
        return [_listed_template(each) for each in found]

    def remove(self, name: str) -> None:
        self._client.delete_snapshot(name)

    def show(self, what: str) -> Shown:
        raise _on_its_host(what)

    def verify(self, what: str) -> tuple[str, ...]:
        raise _on_its_host(what)


def _forked(child: Child) -> Forked:
    error, timings = None, measured.Timings()
    if child.error is not None:
        error = Error.from_wire(dataclasses.asdict(child.error))
    _note(child.sandbox.timings, timings)
    return Forked(
        id=child.sandbox.id,
        error=error,
        unique=child.unique,
        shared=child.shared,
        timings=timings,
    )


def _on_its_host(what: str) -> HostUnsuitable:
    return HostUnsuitable(
        f"what {what!r} consists of can be looked at on its host only",
        hint="there, as root: WRENN_BASE_URL= wrenn snapshot ...",
    )


def _note(found: Timings | None, timings: measured.Timings) -> None:
    for phase in found.phases if found else ():
        timings.add(phase.name, phase.ms)


def _state(found: Sandbox) -> State:
    """A host's states; what only the server knows is an error here."""
    try:
        return State(found.state)
    except ValueError:
        return State.ERROR


def _listed(found: Sandbox) -> Listed:
    return Listed(
        id=found.id,
        template=found.template,
        state=_state(found),
        tier=found.tier,
        vcpus=found.vcpus or 0,
        mem_mib=found.memory_mib or 0,
        created=found.created_at.isoformat() if found.created_at else "",
        address=found.address,
        generation=found.generation,
        is_kept=found.is_kept,
        error=found.error,
    )


def _listed_template(found: Template) -> ListedTemplate:
    return ListedTemplate(
        name=found.name,
        template="",
        sandbox=found.sandbox_id,
        tier=found.tier,
        vcpus=found.vcpus or 0,
        mem_mib=found.memory_mib or 0,
        created=found.created_at.isoformat() if found.created_at else "",
        disk_bytes=found.size_bytes,
        own_bytes=found.size_bytes,
        error=found.error,
    )
