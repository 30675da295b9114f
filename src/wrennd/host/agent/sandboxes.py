"""Lifecycle of this host's sandboxes as the agent does it: room first, on terms, with phases.

Plain synchronous code over `host/local.py`; every method may be called from any thread.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from wrennd.core.errors import AlreadyExists, Error, NotFound
from wrennd.core.expiry import Expiry
from wrennd.core.ids import check_sandbox_id
from wrennd.core.log import bind
from wrennd.core.model import SandboxRequest
from wrennd.core.sandboxes import Forked, ListedTemplate
from wrennd.core.space import Pruning, Space
from wrennd.core.states import State, require
from wrennd.core.timings import Timings
from wrennd.host import forks, local, pruning, record, space, templates
from wrennd.host.agent.activity import Activity, now_ms
from wrennd.host.agent.admission import Admission, Room, room_for
from wrennd.host.agent.catalogue import Catalogue, Seen
from wrennd.host.agent.departures import Departures
from wrennd.host.lifecycle import Lifecycle
from wrennd.host.local import LocalSandboxes, locked
from wrennd.host.local_snapshots import LocalSnapshots
from wrennd.host.record import Journal, Terms
from wrennd.snapshot.reader import DISK, open_snapshot
from wrennd.storage import drivers
from wrennd.storage.images import Image, ImageStore
from wrennd.storage.usage import disk_usage
from wrennd.vmm import console

log = logging.getLogger(__name__)
COPY, DM = "copy", "dm"  # names of disk drivers


@dataclass(frozen=True, kw_only=True)
class Resume:
    """What a resume is to be like. expiry: None: as it was."""

    is_cold: bool = False
    discard: bool = False
    expiry: Expiry | None = None


class Sandboxes:
    """The sandboxes of one installation."""

    def __init__(
        self,
        local: LocalSandboxes,
        catalogue: Catalogue,
        admission: Admission,
        activity: Activity,
        departures: Departures,
        overlay: str,
    ) -> None:
        self._local = local
        self._layout = local.layout
        self._catalogue = catalogue
        self._admission = admission
        self._activity = activity
        self._departures = departures
        self._overlay = overlay
        self._snapshots = LocalSnapshots(local)

    def create(self, wanted: SandboxRequest) -> tuple[Seen, Timings]:
        """Errors: AlreadyExists, NotFound, NoCapacity, and as of `LocalSandboxes.create`."""
        timings = Timings()
        with bind(sandbox=wanted.id), timings.phase("admit"):
            if self._layout.sandbox(wanted.id).data.exists():
                raise _is_taken(wanted.id)
            room = self._room_of(wanted)
        with bind(sandbox=wanted.id), self._admission.reserved(wanted.id, room):
            try:
                self._local.create(wanted, timings)
            except FileExistsError:
                raise _is_taken(wanted.id) from None
            self._activity.touch(wanted.id)
        return self._catalogue.get(wanted.id), timings

    def _room_of(self, wanted: SandboxRequest) -> Room:
        template = templates.find(self._layout, wanted.template)
        if template is None:
            spec, store, driver = wanted.to_spec(), ImageStore(self._layout), self._driver()
            # The disks of the other drivers begin empty.
            is_copied = driver == COPY and store.has(spec.image)
            disk = store.find(spec.image).rootfs if is_copied else None
            return room_for(spec.mem_mib, spec.vcpus, disk=disk, overlay=driver)
        facts = open_snapshot(template.directory).manifest.facts
        spec = locked(wanted, facts)
        disk = template.directory / DISK
        return room_for(spec.mem_mib, spec.vcpus, disk=disk, overlay=self._driver())

    def _driver(self) -> str:
        return drivers.choose(self._layout, self._overlay).name

    def fork(
        self, sandbox_id: str, terms: Terms, wanted: Sequence[forks.Wanted]
    ) -> tuple[Seen, list[Forked], Timings]:
        """The source as it is behind its snapshot, for it may be gone when its children are there;
        and those, in the order in which they are wanted, or why there are none.

        Errors: AlreadyExists, and as of `forks.Source.begin`: there are no children.
        """
        timings = Timings()
        for each in wanted:
            if self._layout.sandbox(each.id).data.exists():
                raise _is_taken(each.id)
        with ExitStack() as held:
            with self._operation(sandbox_id, terms, timings) as journal:
                room = self._room_to_fork(journal)

                def admit(child: forks.Wanted) -> None:
                    held.enter_context(self._admission.reserved(child.id, room))

                fork = self._local.fork_held(held, journal, wanted, admit, timings)
                source = journal.record
            with timings.phase("children"):
                found = {done.id: done for done in forks.finish(fork)}
            for done in found.values():
                if done.error is None:
                    self._activity.touch(done.id)
        return source, [found[each.id] for each in wanted], timings

    def _room_to_fork(self, journal: Journal) -> Room:
        """What each child needs. Errors: NoCapacity when the source, which may have to be paused
        besides, can't be kept."""
        found, paths = journal.record, journal.paths
        if found.state is not State.RUNNING:
            return self._room_again(journal)
        room = room_for(found.mem_mib, found.vcpus, disk=paths.disk, overlay=self._driver())
        self._admission.check_disk(found.id, 2 * room.pause_bytes, "a fork")
        return room

    def pause(self, sandbox_id: str, terms: Terms) -> tuple[Seen, Timings]:
        """Errors: as of `LocalSandboxes.pause`: it goes on."""
        timings = Timings()
        with self._operation(sandbox_id, terms, timings) as journal:
            Lifecycle(self._layout, self._local.network, journal).pause(timings)
        return self._catalogue.get(sandbox_id), timings

    def resume(self, sandbox_id: str, terms: Terms, wanted: Resume) -> tuple[Seen, Timings]:
        """Errors: NoCapacity, and as of `LocalSandboxes.resume`: it is as it was."""
        timings = Timings()
        with self._operation(sandbox_id, terms, timings) as journal:
            found = journal.record
            wants_error = wanted.is_cold or wanted.discard
            states = (State.PAUSED, State.ERROR) if wants_error else (State.PAUSED,)
            require(found.id, found.state, *states, reason=found.error)
            with self._admission.reserved(found.id, self._room_again(journal)):
                # At no moment it runs with a time that was over while it was paused.
                journal.update(expiry_set_ms=now_ms())
                self._local.resume_held(
                    journal, timings, cold=wanted.is_cold, discard=wanted.discard
                )
                expiry = found.expiry if wanted.expiry is None else wanted.expiry
                journal.update(expiry=expiry, expiry_set_ms=now_ms())
                self._activity.touch(found.id)
        return self._catalogue.get(sandbox_id), timings

    def _room_again(self, journal: Journal) -> Room:
        found, paths = journal.record, journal.paths
        disk = paths.generation(found.generation) / DISK if found.generation else paths.disk
        return room_for(found.mem_mib, found.vcpus, disk=disk, overlay=self._driver())

    def destroy(self, sandbox_id: str, terms: Terms) -> tuple[bool, Timings]:
        """Whether there was one. Errors: WrongState of the terms."""
        timings = Timings()
        paths = self._layout.sandbox(check_sandbox_id(sandbox_id))
        if not paths.data.exists():
            return False, timings
        with bind(sandbox=sandbox_id), ExitStack() as undo:
            undo.callback(self._departures.forget, sandbox_id)
            if terms.cause:
                self._departures.add(sandbox_id, terms.cause)
            try:
                self._local.kill(sandbox_id, terms, timings=timings)
            except NotFound:
                return False, timings
            self._activity.forget(sandbox_id)
            if terms.cause:
                undo.pop_all()
        return True, timings

    def set_expiry(self, sandbox_id: str, terms: Terms, expiry: Expiry) -> Seen:
        with self._operation(sandbox_id, terms, Timings()) as journal:
            journal.update(expiry=expiry, expiry_set_ms=now_ms())
        return self._catalogue.get(sandbox_id)

    def freeze(
        self, sandbox_id: str, name: str, terms: Terms, *, ends_paused: bool, overwrite: bool
    ) -> tuple[Seen, Timings]:
        """A snapshot template of it. Errors: as of `LocalSnapshots.create`."""
        timings = Timings()
        with self._operation(sandbox_id, terms, timings) as journal:
            self._check_room_to_freeze(journal, ends_paused=ends_paused)
            self._snapshots.create_held(
                journal, name, timings, ends_paused=ends_paused, overwrite=overwrite
            )
        return self._catalogue.get(sandbox_id), timings

    def _check_room_to_freeze(self, journal: Journal, *, ends_paused: bool) -> None:
        """One that goes on may have to be paused besides; a dm disk becomes one with its base.

        Errors: NoCapacity.
        """
        found, paths = journal.record, journal.paths
        wanted = 0
        if found.state is State.RUNNING and not ends_paused:
            wanted += 2 * self._room_again(journal).pause_bytes
        if found.overlay == DM:
            wanted += disk_usage(paths.data)
        if wanted:
            self._admission.check_disk(found.id, wanted, "a snapshot")

    def remove_template(self, name: str) -> None:
        """Errors: NotFound, InvalidInput."""
        self._snapshots.remove(name)

    def templates(self) -> list[ListedTemplate]:
        return self._snapshots.list()

    def template(self, name: str) -> ListedTemplate:
        return self._snapshots.get(name)

    def images(self) -> list[Image]:
        """Those that are whole."""
        store = ImageStore(self._layout)
        found = []
        for name in sorted(link.name for link in self._layout.names.iterdir()):
            with contextlib.suppress(Error):  # a template, or a broken one, which doctor names
                found.append(store.find(name))
        return found

    def console(self, sandbox_id: str, offset: int) -> console.Piece:
        """Errors: NotFound; WrongState when it has none."""
        paths = self._layout.sandbox(check_sandbox_id(sandbox_id))
        record.load(paths)
        return local.console_of(paths, offset)

    def space(self) -> Space:
        return space.space(self._layout)

    def prune(self, *, is_dry_run: bool, with_templates: bool) -> Pruning:
        """Errors: WrongState while a setup works."""
        return pruning.prune(self._layout, is_dry_run=is_dry_run, with_templates=with_templates)

    @contextmanager
    def _operation(self, sandbox_id: str, terms: Terms, timings: Timings) -> Iterator[Journal]:
        """The sandbox with exactly this id, for us alone. Its beginning is not enough here."""
        with bind(sandbox=check_sandbox_id(sandbox_id)), ExitStack() as held:
            with timings.phase("lock"):
                journal = held.enter_context(self._local.operation(sandbox_id, terms))
            yield journal


def _is_taken(sandbox_id: str) -> AlreadyExists:
    return AlreadyExists(f"there is a sandbox {sandbox_id} already", hint="choose another id")
