"""Sandboxes on this machine without a server: implements `core/sandboxes.py` for the CLI."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from wrennd.core.config import Config
from wrennd.core.deadline import Deadline
from wrennd.core.errors import (
    DeadlineExceeded,
    GuestFailed,
    HostUnsuitable,
    InvalidInput,
    NotFound,
    SnapshotBroken,
    VmmFailed,
    WrongState,
)
from wrennd.core.ids import match_sandbox_id, new_sandbox_id
from wrennd.core.model import SandboxRequest, SandboxSpec, check_children
from wrennd.core.sandboxes import Forked, Listed
from wrennd.core.states import State, require
from wrennd.core.timings import Timings
from wrennd.host import capacity, choice, disk_watch, forks, record, recovery, templates, warm
from wrennd.host.lifecycle import Lifecycle, check_fits
from wrennd.host.local_sandbox import LocalSandbox
from wrennd.host.machine import Machine, Parts, new_record
from wrennd.host.making import Ground
from wrennd.host.reclaim import ids, reclaim, reclaim_one
from wrennd.host.record import Journal, Owner, Record, Terms
from wrennd.host.templates import Template
from wrennd.host.unmake import kill_vmm, unmake
from wrennd.linux.process import Guard
from wrennd.snapshot.manifest import Facts
from wrennd.snapshot.reader import Snapshot, open_snapshot
from wrennd.snapshot.validity import Here
from wrennd.storage.images import ImageStore, Kernel
from wrennd.storage.layout import Layout, SandboxPaths
from wrennd.vmm import console

log = logging.getLogger(__name__)
Report = Callable[[str], None]
# How long one command waits until another is done with the same sandbox.
PATIENCE_S = 120.0
KILL_S = 30.0
LOOK_S = 0.01
CONSOLE_BYTES = 256 << 10  # at once


@contextmanager
def opened(config: Config, report: Report) -> Iterator["LocalSandboxes"]:
    """To change sandboxes: a guard finishes or undoes what this process can't when it is killed.

    Enter it from the main thread, before there are others: the guard is a fork.
    """
    here = LocalSandboxes(config, report)

    def undo() -> None:
        reclaim(here.layout, here.network)

    guard = Guard(undo)
    try:
        yield here
    finally:
        # A clean-up that failed or was interrupted is the guard's to finish, once we are gone.
        if not here.has_leftovers:
            guard.dismiss()


def changing(config: Config) -> AbstractContextManager["LocalSandboxes"]:
    """As `opened`, for sandboxes that are there. Errors: NotFound when there can be none."""
    require_data_dir(config)
    return opened(config, log.info)


def existing(config: Config) -> "LocalSandboxes":
    """To use the sandboxes that are there. Errors: NotFound when there can be none."""
    require_data_dir(config)
    return LocalSandboxes(config, log.info)


def listed(config: Config) -> list[Listed]:
    """All sandboxes; looking makes no data directory."""
    require_root()
    return [] if Layout.find(config.data_dir) is None else existing(config).list()


def read_console(config: Config, sandbox_id: str, offset: int) -> console.Piece:
    """A piece of its console; of one in error, of what was kept of it.

    Errors: NotFound, WrongState when there is none.
    """
    here = existing(config)
    return console_of(here.layout.sandbox(here.match(sandbox_id)), offset)


def console_of(paths: SandboxPaths, offset: int) -> console.Piece:
    """As `read_console`. Errors: WrongState."""
    for path in (paths.console, paths.last_console):
        with contextlib.suppress(FileNotFoundError):
            return console.read(path, offset, CONSOLE_BYTES)
    raise WrongState(
        f"sandbox {paths.data.name} has no console now", hint="only one that runs, or failed, has"
    )


class LocalSandboxes:
    """This machine. `report` is told what is being done when images must be built first.

    settles: look for what dead owners left before anything is made or listed; who watches all the
    time does without.
    """

    def __init__(self, config: Config, report: Report, *, settles: bool = True) -> None:
        require_root()
        self.layout = Layout.prepare(config.data_dir)
        self.network = choice.network_of(config, self.layout)
        self._config = config
        self._report = report
        self._settles = settles
        self._changed: set[str] = set()

    @property
    def has_leftovers(self) -> bool:
        """Whether something that was begun here is neither done nor undone."""
        return not all(self._is_settled(sandbox_id) for sandbox_id in self._changed)

    def _is_settled(self, sandbox_id: str) -> bool:
        try:
            found = record.load(self.layout.sandbox(sandbox_id))
        except NotFound:
            return not self.layout.sandbox(sandbox_id).data.exists()
        return found.owner is Owner.INSTALLATION and not found.state.is_passing

    @contextmanager
    def temporary(self, wanted: SandboxRequest, timings: Timings) -> Iterator[LocalSandbox]:
        machine = self._make(wanted, timings, lives_on=False)
        with contextlib.ExitStack() as held:
            held.callback(machine.close)
            held.enter_context(disk_watch.watched(self.layout, machine))
            yield LocalSandbox(machine)

    def create(self, wanted: SandboxRequest, timings: Timings) -> str:
        self._make(wanted, timings, lives_on=True).detach()
        return wanted.id

    def _make(self, wanted: SandboxRequest, timings: Timings, *, lives_on: bool) -> Machine:
        with timings.phase("prepare"):
            template = templates.find(self.layout, wanted.template)
            self._settle()
        self._note(wanted.id)
        if template is not None:
            return self._spawn(wanted, template, timings, lives_on=lives_on)
        spec = wanted.to_spec()
        with timings.phase("prepare"):
            self._check_room(spec.mem_mib)
            parts = self.parts(spec)
            found = warm.Cold(why="asked for") if wanted.is_cold else warm.find(parts, spec)
        if isinstance(found, warm.Cold):
            return _boot(spec, parts, found, timings, lives_on=lives_on)
        return self._start_warm(wanted, parts, found, timings, lives_on=lives_on)

    def _start_warm(
        self,
        wanted: SandboxRequest,
        parts: Parts,
        snapshot: Snapshot,
        timings: Timings,
        *,
        lives_on: bool,
    ) -> Machine:
        """Restore a warm image; where that fails, boot. Errors: as of `Machine.boot`."""
        spec = wanted.to_spec()
        digests = {"image_digest": parts.image.digest, "kernel_digest": parts.kernel.digest}
        try:
            machine = Machine.spawn(
                new_record(spec, lives_on=lives_on, **digests),
                lambda directory: warm.share(self.layout, snapshot, directory),
                parts.ground,
                timings,
                env=spec.env,
            )
        except (SnapshotBroken, VmmFailed, GuestFailed, DeadlineExceeded) as error:
            warm.doubt(self.layout, snapshot, error)
            cold = warm.Cold(why=f"its warm image could not be restored: {error}")
            return _boot(spec, parts, cold, timings, lives_on=lives_on)
        timings.notes["start"] = "warm"
        return machine

    def _spawn(
        self, wanted: SandboxRequest, template: Template, timings: Timings, *, lives_on: bool
    ) -> Machine:
        with timings.phase("prepare"):
            facts = open_snapshot(template.directory).manifest.facts
            spec = locked(wanted, facts)
            self._check_room(spec.mem_mib)
            ground, here = self._ground_of(facts)
            check_fits(facts, here, f"template {template.name!r}")
        kept = {name: facts.extra.get(name, "") for name in ("image_digest", "kernel_digest")}
        return Machine.spawn(
            new_record(spec, lives_on=lives_on, **kept),
            lambda directory: templates.share(self.layout, template, directory),
            ground,
            timings,
            env=wanted.env,
        )

    @contextmanager
    def connect(self, sandbox_id: str) -> Iterator[LocalSandbox]:
        paths = self.layout.sandbox(self.match(sandbox_id))
        found = record.load(paths)
        if found.state.is_passing and found.owner is Owner.INSTALLATION:
            with self.operation(found.id):  # whoever is at work on it is done then
                found = record.load(paths)
        require(found.id, found.state, State.RUNNING, reason=found.error)
        try:
            if found.is_pager_lost:
                raise ProcessLookupError
            machine = Machine.adopt(self.layout, found)
        except (ProcessLookupError, FileNotFoundError):
            raise self.why_not_running(found.id) from None
        with contextlib.ExitStack() as held:
            held.callback(machine.close)
            yield LocalSandbox(machine)

    def _note(self, sandbox_id: str) -> None:
        """For the guard of a command. Who watches all the time has none, and no end."""
        if self._settles:
            self._changed.add(sandbox_id)

    def _settle(self) -> None:
        if self._settles:
            reclaim(self.layout, self.network)

    def list(self) -> list[Listed]:
        self._settle()
        found = []
        for sandbox_id in ids(self.layout):
            with contextlib.suppress(NotFound):  # it ended meanwhile
                found.append(self._listed(sandbox_id))
        return sorted(found, key=lambda listed: (listed.created, listed.id))

    def pause(self, sandbox_id: str, timings: Timings) -> None:
        with self.operation(sandbox_id) as journal:
            Lifecycle(self.layout, self.network, journal).pause(timings)

    def resume(
        self, sandbox_id: str, timings: Timings, *, cold: bool = False, discard: bool = False
    ) -> None:
        with self.operation(sandbox_id) as journal:
            self.resume_held(journal, timings, cold=cold, discard=discard)

    def resume_held(
        self, journal: Journal, timings: Timings, *, cold: bool = False, discard: bool = False
    ) -> None:
        """As `resume`, of a sandbox whose lock the caller holds."""
        lifecycle = Lifecycle(self.layout, self.network, journal)
        if cold:
            lifecycle.restart(self._to_boot, timings)
        else:
            lifecycle.resume(self._ground_of, timings, discard=discard)

    def fork(self, sandbox_id: str, count: int, timings: Timings) -> tuple[Forked, ...]:
        coming_mib = 0

        def admit(wanted: forks.Wanted) -> None:
            nonlocal coming_mib
            mem_mib = journal.record.mem_mib
            capacity.check_memory(mem_mib, coming_mib=coming_mib)
            coming_mib += mem_mib + capacity.VMM_OVERHEAD_MIB
            self._note(wanted.id)

        wanted = [forks.Wanted(id=new_sandbox_id()) for _ in range(check_children(count))]
        with contextlib.ExitStack() as held:
            with self.operation(sandbox_id) as journal:
                fork = self.fork_held(held, journal, wanted, admit, timings)
            with timings.phase("children"):
                return forks.finish(fork)

    def fork_held(
        self,
        held: contextlib.ExitStack,
        journal: Journal,
        wanted: Sequence[forks.Wanted],
        admit: Callable[[forks.Wanted], None],
        timings: Timings,
    ) -> forks.Fork:
        """The beginning of a fork, as of `forks.Source`, of one whose lock the caller holds."""
        source = forks.Source(
            lifecycle=Lifecycle(self.layout, self.network, journal),
            journal=journal,
            admit=admit,
            choose=self._ground_of,
        )
        return source.begin(held, wanted, timings)

    def _to_boot(self, found: Record) -> tuple[Ground, Kernel]:
        """Errors: NoCapacity, and as of `choice.for_disk`."""
        self._check_room(found.mem_mib)
        kernel = ImageStore(self.layout).kernel()
        return choice.for_disk(self._config, self.layout, kernel, found.dns), kernel

    def _check_room(self, mem_mib: int) -> None:
        """Errors: NoCapacity, when the host has none for one more sandbox."""
        capacity.check_memory(mem_mib)
        disk_watch.check_volume(self.layout)

    def _ground_of(self, facts: Facts) -> tuple[Ground, Here]:
        """Errors: NoCapacity, SnapshotIncompatible."""
        self._check_room(facts.mem_mib)
        return choice.for_snapshot(self._config, self.layout, facts)

    @contextmanager
    def operation(self, sandbox_id: str, terms: Terms = record.ANY) -> Iterator[Journal]:
        """Be the one who changes a sandbox that is kept, and is in a state that lasts.

        Errors: NotFound, InvalidInput, WrongState.
        """
        found = self.match(sandbox_id)
        deadline = Deadline.after(PATIENCE_S)
        with record.operation(self.layout, found, deadline, terms) as journal:
            self._note(found)
            journal.cause = record.RECLAIM
            recovery.settle(self.layout, self.network, journal, is_on_host=False)
            journal.cause = terms.cause
            if not journal.paths.record.exists():  # it had never been finished
                raise record.not_found(found)
            terms.accept(journal.record)
            yield journal

    def kill(
        self, sandbox_id: str, terms: Terms = record.ANY, *, timings: Timings | None = None
    ) -> None:
        timings = timings or Timings()
        paths = self.layout.sandbox(self.match(sandbox_id))
        try:
            found = record.load(paths)
        except NotFound:
            return
        except WrongState:
            self._kill_without_record(paths.data.name, timings)
            return
        if found.owner is Owner.PROCESS:
            terms.accept(found)
            with timings.phase("vmm_end"):
                self._end_with_owner(found.id)
            return
        with (
            contextlib.suppress(NotFound),  # another command was faster
            record.operation(self.layout, found.id, Deadline.after(PATIENCE_S), terms) as journal,
        ):
            terms.accept(journal.record)
            journal.update(state=State.DESTROYING)
            unmake(self.layout, self.network, found.id, timings)

    def _end_with_owner(self, sandbox_id: str) -> None:
        """End the VMM of a sandbox that belongs to a process, which then unmakes the rest."""
        paths = self.layout.sandbox(sandbox_id)
        deadline = Deadline.after(KILL_S)
        while paths.data.exists():
            kill_vmm(self.layout, self.network, sandbox_id)
            reclaim_one(self.layout, self.network, sandbox_id)
            deadline.check(f"ending sandbox {sandbox_id}, which belongs to a wrenn run,")
            time.sleep(LOOK_S)  # its directory's end is nothing that can be waited for

    def _kill_without_record(self, sandbox_id: str, timings: Timings) -> None:
        """Remove one whose record says nothing that we understand. Errors: WrongState."""
        paths = self.layout.sandbox(sandbox_id)
        with record.taken_over(self.layout, paths) as is_ours:
            if not is_ours:
                raise WrongState(
                    f"sandbox {sandbox_id} is in the hands of another command",
                    hint="try again when that is done",
                )
            unmake(self.layout, self.network, sandbox_id, timings)

    def match(self, sandbox_id: str) -> str:
        return match_sandbox_id(sandbox_id, ids(self.layout))

    def why_not_running(self, sandbox_id: str) -> WrongState:
        """What became of a sandbox whose VMM is gone. Errors: NotFound."""
        terms = Terms(cause=record.RECLAIM)
        with record.operation(
            self.layout, sandbox_id, Deadline.after(PATIENCE_S), terms
        ) as journal:
            recovery.settle(self.layout, self.network, journal)
        found = record.load(self.layout.sandbox(sandbox_id))
        require(sandbox_id, found.state, reason=found.error)
        raise AssertionError("no state was wanted")

    def _listed(self, sandbox_id: str) -> Listed:
        try:
            found = record.load(self.layout.sandbox(sandbox_id))
        except WrongState as error:
            return _unreadable(sandbox_id, str(error))
        return Listed(
            id=found.id,
            template=found.template,
            state=found.state,
            tier=found.tier,
            vcpus=found.vcpus,
            mem_mib=found.mem_mib,
            created=found.created,
            address=found.address,
            generation=found.generation,
            is_kept=found.owner is Owner.INSTALLATION,
            error=found.error,
        )

    def parts(self, spec: SandboxSpec) -> Parts:
        """What this host makes the sandbox of; builds images that are not there yet."""
        return choice.for_image(self._config, self.layout, spec, self._report)


def _boot(
    spec: SandboxSpec, parts: Parts, cold: warm.Cold, timings: Timings, *, lives_on: bool
) -> Machine:
    log.info("a sandbox boots", extra={"sandbox": spec.id, "why": cold.why})
    timings.notes["start"] = f"cold: {cold.why}"
    return Machine.boot(spec, parts, timings, lives_on=lives_on)


def locked(wanted: SandboxRequest, facts: Facts) -> SandboxSpec:
    """What was asked for, of a template whose sizes are frozen. Errors: InvalidInput."""
    for what, asked, frozen in (
        ("vCPUs", wanted.vcpus, facts.vcpus),
        ("MiB of memory", wanted.mem_mib, facts.mem_mib),
    ):
        if asked not in (None, frozen):
            raise InvalidInput(
                f"sandboxes of {wanted.template!r} have {frozen} {what}, not {asked}: it was "
                "frozen with them",
                hint="leave the option out, or make another template",
            )
    if wanted.is_cold:
        raise InvalidInput(
            f"sandboxes of {wanted.template!r} can't be booted: it is a frozen one",
            hint="leave --cold out, or boot the image that it was made of",
        )
    if wanted.dns:
        raise InvalidInput(
            f"sandboxes of {wanted.template!r} have the resolvers that it was frozen with",
            hint="leave --dns out, or make another template",
        )
    return wanted.to_spec(vcpus=facts.vcpus, mem_mib=facts.mem_mib)


def _unreadable(sandbox_id: str, why: str) -> Listed:
    return Listed(
        id=sandbox_id,
        template="",
        state=State.ERROR,
        tier="",
        vcpus=0,
        mem_mib=0,
        created="",
        address="",
        generation=0,
        is_kept=True,
        error=why,
    )


def require_data_dir(config: Config) -> None:
    """Errors: HostUnsuitable when this process is not root; NotFound without a data directory."""
    require_root()
    if Layout.find(config.data_dir) is None:
        raise NotFound(
            f"there are no sandboxes: {config.data_dir} is no data directory of Wrenn's",
            hint="--data-dir and WRENN_DATA_DIR say where it is",
        )


def require_root() -> None:
    """Errors: HostUnsuitable when this process is not root."""
    if os.geteuid() != 0:
        raise HostUnsuitable(
            "sandboxes can only be made by root",
            hint="run it with sudo: namespaces, TAP devices and mounts need it",
        )
