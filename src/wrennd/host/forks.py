"""Forks: sandboxes that go on where another one is, each as itself; that one goes on, too.

`Source.begin` is for the holder of the source's lock: one checkpoint of it, or its stored
generation if it is paused, and for each child a directory with links of that. `finish` lets the
children wake up, several at a time, while the source is anybody's again. Every child has its own
end: one that fails is unmade, the others are not concerned.

Children are made in the state STARTING with locks of their own, so that a process that dies here
leaves what `host/reclaim.py` knows: children that are whole live on, the others are removed.
"""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from wrennd.core.errors import Error, InvalidInput, NoCapacity
from wrennd.core.expiry import Expiry
from wrennd.core.ids import check_sandbox_id
from wrennd.core.model import SandboxSpec, check_children
from wrennd.core.sandboxes import Forked
from wrennd.core.states import State, require
from wrennd.core.timings import Timings
from wrennd.host import record
from wrennd.host.lifecycle import Lifecycle, check_fits
from wrennd.host.machine import Machine, new_record
from wrennd.host.making import Ground
from wrennd.host.record import Journal, Record
from wrennd.snapshot import store
from wrennd.snapshot.manifest import Facts
from wrennd.snapshot.reader import Snapshot
from wrennd.snapshot.validity import Here
from wrennd.storage.overlay import full_is_no_capacity

log = logging.getLogger(__name__)

# What every child has of its own, and what a guest's agent calls those of them that it sees to.
UNIQUE = (
    "id",
    "access token",
    "host name",
    "machine-id",
    "boot_id",
    "id file",
    "kernel's random numbers",
    "clock",
    "address",
    "memory",
    "disk",
)
# What nobody but the programs in it can set right.
SHARED = (
    "programs that were running have the source's id in their environment; "
    "/run/wrenn/sandbox-id has the child's",
    "what programs keep in memory (random generators, keys, sessions) is the source's until they "
    "renew it; hooks in /etc/wrenn/resume.d/ are run for that",
    "files that hold an identity, such as keys of an SSH server, are copies",
    "connections to elsewhere stay the source's; in the child they are dead",
)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A child as it is asked for. expiry: None: as the source's."""

    id: str
    expiry: Expiry | None = None


def wanted(source: str, ids: Sequence[str], expiry: Expiry | None) -> list[Wanted]:
    """Children with these ids. Errors: InvalidInput."""
    check_children(len(ids))
    if len({source, *ids}) <= len(ids):
        raise InvalidInput("the children of a fork need ids of their own")
    return [Wanted(id=check_sandbox_id(child), expiry=expiry) for child in ids]


@dataclass
class Begun:
    """A child that has a directory, and nothing that runs. `held` unmakes it."""

    held: ExitStack
    journal: Journal
    snapshot: Snapshot
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, kw_only=True)
class Fork:
    """Children on their way: those that are begun, and why the others are not."""

    ground: Ground
    begun: Sequence[Begun]
    failed: Sequence[Forked]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A sandbox that is forked, by the holder of its lock.

    admit: has room for one child more, until it is made, or raises NoCapacity. choose: with what a
    snapshot of such facts is restored here.
    """

    lifecycle: Lifecycle
    journal: Journal
    admit: Callable[[Wanted], None]
    choose: Callable[[Facts], tuple[Ground, Here]]

    def begin(self, held: ExitStack, wanted: Sequence[Wanted], timings: Timings) -> Fork:
        """The source goes on, or stays paused; what unmakes the children is put on `held`.

        Errors: WrongState, GuestFailed, NoCapacity (for the first of them), VmmFailed,
        SnapshotBroken, SnapshotIncompatible: there are no children.
        """
        found = self.journal.record
        require(found.id, found.state, State.RUNNING, State.PAUSED, reason=found.error)
        with timings.phase("admit"):
            admitted, failed = self._admitted(wanted)
        snapshot = self._snapshot(timings)
        with timings.phase("share"):
            ground, here = self.choose(snapshot.manifest.facts)
            check_fits(snapshot.manifest.facts, here, f"sandbox {found.id}")
            begun: list[Begun] = []
            for each in admitted:
                try:
                    begun.append(_begin(held, found, snapshot, each, ground))
                except Error as error:
                    failed.append(Forked(id=each.id, error=error))
                except OSError as error:
                    log.exception("a child could not be begun", extra={"sandbox": each.id})
                    why = f"sandbox {each.id} could not be made: {error.strerror or error}"
                    failed.append(Forked(id=each.id, error=Error(why)))
        return Fork(ground=ground, begun=begun, failed=failed)

    def _admitted(self, wanted: Sequence[Wanted]) -> tuple[list[Wanted], list[Forked]]:
        """Those that have room, and why the others have none. Errors: NoCapacity for all."""
        admitted: list[Wanted] = []
        failed: list[Forked] = []
        for each in wanted:
            try:
                self.admit(each)
            except NoCapacity as error:
                failed.append(Forked(id=each.id, error=error))
                if len(failed) == len(wanted):
                    raise
            else:
                admitted.append(each)
        return admitted, failed

    def _snapshot(self, timings: Timings) -> Snapshot:
        if self.journal.record.state is State.PAUSED:
            return self.lifecycle.newest()
        return self.lifecycle.snapshot(timings)


def _begin(
    held: ExitStack, source: Record, snapshot: Snapshot, wanted: Wanted, ground: Ground
) -> Begun:
    spec = SandboxSpec(
        id=wanted.id,
        image=source.template,
        vcpus=source.vcpus,
        mem_mib=source.mem_mib,
        disk_mib=source.disk_mib,
        dns=source.dns,
        env=source.env,
        expiry=source.expiry if wanted.expiry is None else wanted.expiry,
    )
    child = new_record(
        spec,
        lives_on=True,
        image_digest=source.image_digest,
        kernel_digest=source.kernel_digest,
        source=source.id,
    )
    with full_is_no_capacity(ground.layout.sandboxes), ExitStack() as undo:
        journal = record.make(undo, ground.layout, child)
        shared = store.share(snapshot, journal.paths.generation(1))
        journal.update(generation=1)
        own = undo.pop_all()
    held.enter_context(own)
    return Begun(own, journal, shared)


def finish(fork: Fork) -> tuple[Forked, ...]:
    """Wake the children up, as many at a time as there are CPUs: each is slower beside others.

    Those that have not begun to when this is interrupted are left to who holds what unmakes them.
    """
    pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="fork")
    try:
        waking = [pool.submit(_finish, begun, fork.ground) for begun in fork.begun]
        return (*(each.result() for each in waking), *fork.failed)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finish(begun: Begun, ground: Ground) -> Forked:
    child, timings = begun.journal.record.id, begun.timings
    try:
        with begun.held:
            machine = Machine.wake(begun.held, begun.journal, begun.snapshot, ground, timings)
            machine.detach()
    except Error as error:
        return Forked(id=child, error=error, timings=timings)
    except Exception:  # the outermost frame of this child's making
        log.exception("a child could not be made", extra={"sandbox": child})
        return Forked(id=child, error=Error(f"sandbox {child} could not be made"), timings=timings)
    return Forked(
        id=child,
        unique=tuple(name for name in UNIQUE if not _is_about(name, machine.troubles)),
        shared=(*machine.troubles, *SHARED),
        timings=timings,
    )


def _is_about(name: str, troubles: Sequence[str]) -> bool:
    return any(trouble.startswith(f"the {name} ") for trouble in troubles)
