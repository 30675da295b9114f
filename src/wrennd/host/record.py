"""The record of what a sandbox holds, written before anything is made; and who may change it.

A sandbox's directory exists from before its first resource until after its last. Whoever does
something to the sandbox holds a lock on `owner.lock` in it: `wrenn run` for as long as it lives,
other commands for one operation. A lock that can be taken of a sandbox that belongs to a process,
or that is on its way from one state to another, means that its holder is dead:
`host/reclaim.py` then unmakes it, or brings it to a state that lasts. The lock goes with the
process, SIGKILL included, and can't be confused by reused pids.

The run directory is a small tmpfs of its own: what a VMM writes there, console and log included,
is bounded, and goes in one step.

Locks: `sandboxes/.lock` guards which entries there are (a directory is made together with its
taken `owner.lock`, and looked at only in that state), and the installation's cgroup; it is held
for milliseconds. One sandbox's `owner.lock` is taken under it, or without it, and then held;
nobody waits for an `owner.lock` while he holds `.lock`.
"""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from wrennd.core.deadline import Deadline
from wrennd.core.errors import InvalidInput, NoCapacity, NotFound, WrongState
from wrennd.core.expiry import NEVER, Action, After, Expiry
from wrennd.core.states import State, check_move, require
from wrennd.linux import files, mounts, process
from wrennd.storage.layout import Layout, SandboxPaths

VERSION = 2
RUN_BYTES = 16 << 20  # sockets, the console (4 MiB at most while it is watched), the VMM's log
RUN_FILES = 64
_LOOK_S = 0.005
# Causes of a change that no user asked for.
RECLAIM, EXPIRY = "reclaim", "expiry"


class Owner(StrEnum):
    """To whom a sandbox belongs: with a process it ends, the installation keeps it."""

    PROCESS = "process"
    INSTALLATION = "installation"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a sandbox is, and what it holds or is about to hold; the rest is named by its ids.

    disk_mib: how long a disk was asked for, 0: as what it is made of.
    created: ISO 8601 in UTC. boot_id: the host's, while which its processes were started.
    vmm_facts, guest_kernel: what made its memory, as a snapshot's manifest says it. resolvers: the
    ones that its guest knows.
    generation: the newest snapshot that is whole; parent: the one that the VM's memory goes on
    from; pending: the one that is being made; 0: none. needs_full: what changed in memory since
    then is not known, so that the next snapshot has to hold all of it.
    source: the sandbox that it was forked from, else "".
    error: why it is in the state ERROR, one clause; in RESUMING, that it was in it.
    revision: grows with each change of its state; 0 of one that was made before there were any.
    cause: who asked for the last change: "" a user, else `expiry`, or `reclaim` for who finished
    what somebody else had left. expiry_set_ms: when that was set, or it was resumed (since 1970).
    """

    id: str
    owner: Owner
    state: State
    template: str
    vcpus: int
    mem_mib: int
    image_digest: str = ""
    kernel_digest: str = ""
    vmm: str = ""
    tier: str = ""
    overlay: str = ""
    disk_mib: int = 0
    dns: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    source: str = ""
    vmm_facts: Mapping[str, Any] = field(default_factory=dict)
    guest_kernel: str = ""
    resolvers: tuple[str, ...] = ()
    generation: int = 0
    parent: int = 0
    pending: int = 0
    needs_full: bool = False
    boot_id: str = ""
    slot: int | None = None
    address: str = ""
    vmm_pid: int | None = None
    vmm_start_time: int | None = None
    pager_pid: int | None = None
    pager_start_time: int | None = None
    error: str = ""
    revision: int = 0
    cause: str = ""
    expiry: Expiry = NEVER
    expiry_set_ms: int = 0
    version: int = VERSION

    def encode(self) -> bytes:
        return (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode()

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Errors: ValueError when it is not a record of a version that is known."""
        values = json.loads(raw)
        if not isinstance(values, dict) or values.get("version") not in (1, VERSION):
            raise ValueError(f"not a sandbox record of version 1 to {VERSION}")
        if values["version"] == 1:
            values |= _SINCE_VERSION_1
        names = {field.name for field in dataclasses.fields(cls)}
        kept = {name: value for name, value in values.items() if name in names}
        try:
            kept |= {
                "owner": Owner(kept["owner"]),
                "state": State(kept["state"]),
                "dns": tuple(kept.get("dns", ())),
                "resolvers": tuple(kept.get("resolvers", ())),
                "expiry": _expiry(kept.get("expiry")),
            }
            return cls(**kept)
        except (KeyError, TypeError, InvalidInput) as error:
            raise ValueError(f"the record lacks something: {error}") from error

    @property
    def is_vmm_alive(self) -> bool:
        """Whether that very VMM still runs; False for one of before the host's last boot."""
        if self.vmm_pid is None or self.vmm_start_time is None:
            return False
        if self.boot_id not in ("", host_boot_id()):
            return False
        return process.is_alive(self.vmm_pid, self.vmm_start_time)

    @property
    def is_pager_lost(self) -> bool:
        """Whether its memory is served by a process that has ended: its guest will hang."""
        if self.pager_pid is None or self.pager_start_time is None:
            return False
        return not process.is_alive(self.pager_pid, self.pager_start_time)


def _expiry(found: Mapping[str, Any] | None) -> Expiry:
    if found is None:
        return NEVER
    after, action = After(found["after"]), Action(found["action"])
    return Expiry(after=after, seconds=found["seconds"], action=action)


# Sandboxes of version 1 ended with their process: what is left of one is only to be unmade.
_SINCE_VERSION_1: dict[str, Any] = {
    "version": VERSION,
    "owner": "process",
    "state": "running",
    "template": "",
    "vcpus": 0,
    "mem_mib": 0,
}


def host_boot_id() -> str:
    """Another one after each boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Journal:
    """The record of one sandbox whose lock this process holds. Each `update` is on disk on return.

    cause: on whose behalf its state is changed, as the record says it. lock: closed by `close`,
    which may be called twice; -1 where the lock is somebody else's to close.
    """

    def __init__(self, paths: SandboxPaths, record: Record, lock: int = -1) -> None:
        self.paths = paths
        self.record = record
        self.cause = ""
        self._lock = lock

    def update(self, **changes: Any) -> None:
        """Errors: AssertionError for a change of state that can't be (`core/states.py`)."""
        if "state" in changes and changes["state"] != self.record.state:
            check_move(self.record.state, changes["state"])
            changes |= {"revision": self.record.revision + 1, "cause": self.cause}
        self.record = dataclasses.replace(self.record, **changes)
        files.write_atomic(self.paths.record, self.record.encode())

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def installation_lock(layout: Layout) -> AbstractContextManager[None]:
    """What every process of an installation takes to change which sandboxes there are."""
    return files.locked(layout.sandboxes / ".lock")


@contextmanager
def opened(layout: Layout, record: Record) -> Iterator[Journal]:
    """As `make`, for the length of a block; whatever is in the directories at its end goes."""
    with ExitStack() as held:
        yield make(held, layout, record)


def make(held: ExitStack, layout: Layout, record: Record) -> Journal:
    """Make a sandbox's directories and record; what removes them is put on `held`.

    Errors: NoCapacity when the filesystem is full; FileExistsError when the id is taken.
    """
    paths = layout.sandbox(record.id)
    try:
        journal = Journal(paths, record, _make(layout, paths))
        held.callback(journal.close)
        held.callback(remove, layout, paths)
        journal.update()
        make_run_dir(layout, paths)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise NoCapacity(f"the filesystem of {layout.data_dir} is full") from error
        raise
    return journal


def _make(layout: Layout, paths: SandboxPaths) -> int:
    """The sandbox's directory with its lock taken, in one step as others see it."""
    with installation_lock(layout):
        paths.data.mkdir(mode=0o700)
        lock = os.open(paths.owner_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not files.try_lock(lock):
            raise AssertionError("a new lock file is held by somebody else")
    return lock


def make_run_dir(layout: Layout, paths: SandboxPaths) -> None:
    """`remove_run_dir` unmakes it."""
    with installation_lock(layout):  # the last one to go removes the parent
        paths.run.mkdir(mode=0o700, parents=True)
    mounts.mount_tmpfs(paths.run, size_bytes=RUN_BYTES, files=RUN_FILES)


def remove_run_dir(layout: Layout, paths: SandboxPaths) -> None:
    """Nothing happens when there is none."""
    mounts.unmount(paths.run)
    with installation_lock(layout):
        if paths.run.exists():
            shutil.rmtree(paths.run)
        with contextlib.suppress(OSError):  # other sandboxes are in it, or it is gone
            layout.run_dir.rmdir()


def remove(layout: Layout, paths: SandboxPaths) -> None:
    """Remove both directories; the data directory last, since it is what names the rest."""
    remove_run_dir(layout, paths)
    with installation_lock(layout):
        if paths.data.exists():
            shutil.rmtree(paths.data)


@contextmanager
def taken_over(layout: Layout, paths: SandboxPaths) -> Iterator[bool]:
    """Become the one who may change a sandbox, if nobody is, for the block. False when one is."""
    with ExitStack() as held:
        with installation_lock(layout):
            try:
                lock = os.open(paths.owner_lock, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                # Its maker died before it had a lock, or the directory is gone: nobody's.
                is_ours = True
            else:
                held.callback(os.close, lock)
                is_ours = files.try_lock(lock)
        yield is_ours


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what a change is begun: looked at by the holder of the sandbox's lock.

    expected_revision: None: any. is_patient: wait for whoever is changing it now. cause: as the
    record's. check: raises when the record is not what it should be.
    """

    expected_revision: int | None = None
    is_patient: bool = True
    cause: str = ""
    check: Callable[[Record], None] | None = None

    def accept(self, found: Record) -> None:
        """Errors: WrongState, and those of `check`."""
        if self.expected_revision not in (None, found.revision):
            raise WrongState(
                f"sandbox {found.id} is {found.state} at revision {found.revision}, "
                f"not {self.expected_revision}",
                hint="it was changed meanwhile: look at it again",
            )
        if self.check is not None:
            self.check(found)


ANY = Terms()


@contextmanager
def operation(
    layout: Layout, sandbox_id: str, deadline: Deadline, terms: Terms = ANY
) -> Iterator[Journal]:
    """Be the one who changes a sandbox that is kept, once others are done, for the block.

    Only `terms.is_patient` is looked at here. Errors: NotFound; WrongState when it belongs to a
    process that lives, others are not done by the deadline, or its record can't be read.
    """
    paths = layout.sandbox(sandbox_id)
    with ExitStack() as held:
        try:
            lock = os.open(paths.owner_lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise not_found(sandbox_id) from None
        held.callback(os.close, lock)
        while not files.try_lock(lock):
            _check_patience(paths, deadline, terms)
            time.sleep(_LOOK_S)  # flock(2) can be waited for, but not until a deadline
        if not _is_still(paths.owner_lock, lock):
            raise not_found(sandbox_id)
        journal = Journal(paths, load(paths))
        journal.cause = terms.cause
        yield journal


def _check_patience(paths: SandboxPaths, deadline: Deadline, terms: Terms) -> None:
    found = load(paths)
    if found.owner is Owner.PROCESS:
        raise WrongState(
            f"sandbox {found.id} belongs to a wrenn run that has not ended",
            hint=f"it ends with its command; wrenn kill {found.id} ends both",
        )
    if not terms.is_patient and found.state.is_passing:
        require(found.id, found.state)
    if deadline.is_over:
        raise WrongState(
            f"sandbox {found.id} is in the hands of another command: it is {found.state}",
            hint="try again when that is done",
        )


def _is_still(path: Path, fd: int) -> bool:
    """Whether a file that was opened by this name still has it: its directory may have gone."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def not_found(sandbox_id: str) -> NotFound:
    return NotFound(f"there is no sandbox {sandbox_id}", hint="wrenn ls --all lists those that are")


def load(paths: SandboxPaths) -> Record:
    """The record as it is now. Errors: NotFound; WrongState when it can't be read."""
    try:
        return Record.decode(paths.record.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise not_found(paths.data.name) from None
    except ValueError as error:
        raise WrongState(
            f"the record of sandbox {paths.data.name} can't be read: {error}",
            hint=f"if no newer version of Wrenn wrote it, wrenn kill {paths.data.name} removes it",
        ) from error
