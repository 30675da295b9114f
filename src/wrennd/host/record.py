"""The record of what a sandbox holds, written before anything is made; and who owns it.

A sandbox's directory exists from before its first resource until after its last. Its owner, the
process that made it, holds a lock on `owner.lock` in it for as long as it lives: a lock that can
be taken means that the owner is dead and that what the record names may be unmade by
`host/reclaim.py`. The lock goes with the process, SIGKILL included, and can't be confused by
reused pids.

The run directory is a small tmpfs of its own: what a VMM writes there, console and log included,
is bounded, and goes in one step.

Locks: `sandboxes/.lock` guards which entries there are (a directory is made together with its
taken `owner.lock`, and looked at only in that state), and the installation's cgroup; it is held
for milliseconds. One sandbox's `owner.lock` is taken under it and then held.
"""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

from wrennd.core.errors import NoCapacity
from wrennd.linux import files, mounts
from wrennd.storage.layout import Layout, SandboxPaths

VERSION = 1
RUN_BYTES = 16 << 20  # sockets, the console (4 MiB at most while it is watched), the VMM's log
RUN_FILES = 64


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a sandbox holds or is about to hold. Everything else is named by its ids."""

    id: str
    image_digest: str
    kernel_digest: str
    vmm: str
    tier: str
    overlay: str
    slot: int | None = None
    vmm_pid: int | None = None
    vmm_start_time: int | None = None
    version: int = VERSION

    def encode(self) -> bytes:
        return (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode()

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Errors: ValueError when it is not a record of a version that is known."""
        values = json.loads(raw)
        if not isinstance(values, dict) or values.get("version") != VERSION:
            raise ValueError("not a sandbox record of version 1")
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})


class Journal:
    """The record of one sandbox that this process owns. Each `update` is on disk on return."""

    def __init__(self, paths: SandboxPaths, record: Record) -> None:
        self.paths = paths
        self.record = record

    def update(self, **changes: str | int | None) -> None:
        self.record = dataclasses.replace(self.record, **changes)  # type: ignore[arg-type]
        files.write_atomic(self.paths.record, self.record.encode())


def installation_lock(layout: Layout) -> AbstractContextManager[None]:
    """What every process of an installation takes to change which sandboxes there are."""
    return files.locked(layout.sandboxes / ".lock")


@contextmanager
def opened(layout: Layout, record: Record) -> Iterator[Journal]:
    """Make a sandbox's directories and record; at the end remove them, whatever is in them.

    Errors: NoCapacity when the filesystem is full; FileExistsError when the id is taken.
    """
    paths = layout.sandbox(record.id)
    with ExitStack() as held:
        try:
            held.callback(os.close, _make(layout, paths))
            held.callback(remove, layout, paths)
            paths.run.mkdir(mode=0o700, parents=True)
            mounts.mount_tmpfs(paths.run, size_bytes=RUN_BYTES, files=RUN_FILES)
            journal = Journal(paths, record)
            journal.update()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise NoCapacity(f"the filesystem of {layout.data_dir} is full") from error
            raise
        yield journal


def _make(layout: Layout, paths: SandboxPaths) -> int:
    """The sandbox's directory with its lock taken, in one step as others see it."""
    with installation_lock(layout):
        paths.data.mkdir(mode=0o700)
        lock = os.open(paths.owner_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not files.try_lock(lock):
            raise AssertionError("a new lock file is held by somebody else")
    return lock


@contextmanager
def taken_over(layout: Layout, paths: SandboxPaths) -> Iterator[bool]:
    """Become the owner of a sandbox for the block. False when its owner lives."""
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


def remove(layout: Layout, paths: SandboxPaths) -> None:
    """Remove both directories; the data directory last, since it is what names the rest."""
    mounts.unmount(paths.run)
    with installation_lock(layout):
        for directory in (paths.run, paths.data):
            if directory.exists():
                shutil.rmtree(directory)
        with contextlib.suppress(OSError):  # other sandboxes are in it, or it is gone
            layout.run_dir.rmdir()
