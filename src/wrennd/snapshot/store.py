"""Directories of snapshots: made in one step, shared by hard links, removed in one step.

    with draft(directory) as made:          # works in <directory>.tmp
        made.take_state(out / "state")
        made.take_memory(out / "memory", parent=opened, mem_mib=512)
        clone_the_disk_to(made.disk)
        made.write_token(token)
        snapshot = made.commit(facts)       # synced, and there

Whoever changes a directory holds the lock of its sandbox or template: nothing here locks.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from wrennd.core.errors import AlreadyExists, InvalidInput, NoCapacity
from wrennd.linux.files import copy_sparse, sync_directory
from wrennd.snapshot import checksums
from wrennd.snapshot.header import PAGE_SIZE, Header, memfile_name
from wrennd.snapshot.manifest import (
    MIB,
    Facts,
    FileFacts,
    Generation,
    Layout,
    Manifest,
)
from wrennd.snapshot.reader import (
    BASE_PREFIX,
    DISK,
    HEADER,
    MANIFEST,
    MEMFILE,
    STATE,
    SUMS,
    TOKEN,
    TOUCHED,
    Pages,
    Snapshot,
    open_snapshot,
)
from wrennd.snapshot.sums import encode_sums, zero_sums
from wrennd.snapshot.writer import Stored, opened_output, store_diff, write_all

# Firecracker reads back at most 10 MiB of state; ours is some KiB.
MAX_STATE_BYTES = 64 * MIB
_SUFFIX = ".tmp"
_GENERATION = re.compile(r"gen-([0-9]{1,9})")
_READABLE, _DISK_MODE, _SECRET = 0o444, 0o400, 0o600


class Draft:
    """A snapshot that is being made. After `commit` nothing more can be done with it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory.with_name(directory.name + _SUFFIX)
        self._directory = directory
        self._layout = Layout.CHAIN
        self._generations: tuple[Generation, ...] = ()
        self._files: dict[str, FileFacts] = {}
        self._linked: set[str] = set()
        self._parents: list[Snapshot] = []
        self.is_committed = False

    @property
    def disk(self) -> Path:
        """Where the caller puts the disk, before `commit`; beside it, if need be, its base."""
        return self.path / DISK

    def take_state(self, source: Path) -> None:
        """The VMM's state file. Errors: VmmFailed when there is none that can be one."""
        with (
            opened_output(source, max_size=MAX_STATE_BYTES) as fd,
            os.fdopen(os.dup(fd), "rb") as f,
        ):
            self.write(STATE, f.read(MAX_STATE_BYTES))

    def take_memory(self, source: Path, *, parent: Snapshot | None, mem_mib: int) -> Generation:
        """What the guest changed since `parent` (None: since all was zero), as the VMM wrote it.

        The parents' files that are still needed are linked. Errors: VmmFailed; SnapshotBroken when
        the parent is; InvalidInput when its memory has another size.
        """
        pages = mem_mib * MIB // PAGE_SIZE
        if parent is not None and parent.header.pages != pages:
            raise InvalidInput(
                f"a guest of {mem_mib} MiB can't go on from one of {parent.manifest.facts.mem_mib}"
            )
        build = secrets.token_hex(16)
        self._parents += [parent] if parent else []
        stored = self._store(source, memfile_name(build), parent, pages, build)
        for name, path in _needed(parent, stored.header):
            self._link(path, name, FileFacts(size=path.stat().st_size, checksum=checksums.PAGES))
        earlier = parent.manifest.generations if parent else ()
        self._set_chain(stored, (*earlier, _generation(build, stored)))
        return self._generations[-1]

    def take_whole_memory(self, source: Path, *, mem_mib: int) -> None:
        """A Full memory file, kept in the single-file layout. Errors: VmmFailed."""
        build = secrets.token_hex(16)
        stored = self._store(source, MEMFILE, None, mem_mib * MIB // PAGE_SIZE, build)
        self._layout = Layout.SINGLE
        self._generations = (_generation(build, stored),)
        self.write(SUMS, encode_sums(stored.sums))

    def write_token(self, token: str) -> None:
        """What the guest's agent wants to be shown first after a restore."""
        self.write(TOKEN, token.encode(), mode=_SECRET)

    def write_touched(self, data: bytes) -> None:
        """The working set, as the pager recorded it."""
        self.write(TOUCHED, data)

    def link(self, snapshot: Snapshot, *, disk: bool = True, memory: bool = True) -> None:
        """Everything of another snapshot, or all but its disk or memory, by hard links."""
        memory_names = {HEADER, *snapshot.memfile_names, MEMFILE}
        for name, facts in snapshot.manifest.files.items():
            is_disk = name == DISK or name.startswith(BASE_PREFIX)
            if (disk or not is_disk) and (memory or name not in memory_names):
                self._link(snapshot.directory / name, name, facts)
        self._layout = snapshot.manifest.layout
        self._generations = snapshot.manifest.generations

    def take_files(self, manifest: Manifest) -> None:
        """All files of another snapshot, which the caller has put there under their names."""
        for name in manifest.files:
            mode = {DISK: _DISK_MODE, TOKEN: _SECRET}.get(name, _READABLE)
            (self.path / name).chmod(mode)
        self._files = dict(manifest.files)
        self._layout = manifest.layout
        self._generations = manifest.generations

    @contextmanager
    def fresh_memory(self, name: str) -> Iterator[int]:
        """An empty memory file, open for writing; its content is covered by `sums`."""
        with self._fresh(name, _READABLE) as fd:
            yield fd
            self._files[name] = FileFacts(size=os.fstat(fd).st_size, checksum=checksums.PAGES)

    def set_collapsed(self, header: Header, generation: Generation) -> None:
        """Memory that is one build: its file was made by `fresh_memory`, the sums are linked."""
        self._layout = Layout.CHAIN
        self._generations = (generation,)
        self.write(HEADER, header.encode())

    def commit(self, facts: Facts) -> Snapshot:
        """Sync everything, say what it is, and give it its name.

        Errors: AlreadyExists; OSError. Then nothing of it is left after the draft's block.
        """
        self._add_disk()
        manifest = Manifest(
            layout=self._layout,
            created=_now(),
            facts=facts,
            generations=self._generations,
            files=dict(self._files),
        )
        for name in self._files.keys() - self._linked:
            _sync(self.path / name)
        with self._fresh(MANIFEST, _READABLE) as fd:
            write_all(fd, memoryview(manifest.encode()), 0)
            os.fsync(fd)
        sync_directory(self.path)
        _check_is_free(self._directory)
        with ExitStack() as undo:
            self.path.rename(self._directory)
            undo.callback(self._directory.rename, self.path)
            sync_directory(self._directory.parent)
            snapshot = open_snapshot(self._directory)
            undo.pop_all()
        self.is_committed = True
        return snapshot

    def _add_disk(self) -> None:
        """What the caller has put there; a base is another name of a file that is on the disk."""
        if DISK not in self._files:
            self.disk.chmod(_DISK_MODE)
            self._files[DISK] = _disk_facts(self.disk)
        for path in self.path.glob(f"{BASE_PREFIX}*"):
            if path.name not in self._files:
                self._files[path.name] = self._base_facts(path)
                self._linked.add(path.name)

    def _base_facts(self, path: Path) -> FileFacts:
        """A parent's, where it is the same file: reading it all takes longer than the pause."""
        for parent in self._parents:
            known = parent.manifest.files.get(path.name)
            if known is not None and path.samefile(parent.directory / path.name):
                return known
        return _disk_facts(path)

    def write(self, name: str, data: bytes, *, mode: int = _READABLE) -> None:
        """A small file of the snapshot."""
        with self._fresh(name, mode) as fd:
            write_all(fd, memoryview(data), 0)
        self._files[name] = FileFacts(size=len(data), checksum=checksums.of_bytes(data))

    def _store(
        self, source: Path, name: str, parent: Snapshot | None, pages: int, build: str
    ) -> Stored:
        with ExitStack() as held:
            fd = held.enter_context(opened_output(source, size=pages * PAGE_SIZE))
            target = held.enter_context(self.fresh_memory(name))
            if parent is None:
                return store_diff(fd, target, Pages.zero(pages), zero_sums(pages), build)
            lower = held.enter_context(Pages.opened(parent))
            return store_diff(fd, target, lower, parent.read_sums(), build)

    def _set_chain(self, stored: Stored, generations: tuple[Generation, ...]) -> None:
        name = memfile_name(generations[-1].build)
        if not stored.data_pages:
            (self.path / name).unlink()
            del self._files[name]
        self._generations = generations
        self.write(HEADER, stored.header.encode())
        self.write(SUMS, encode_sums(stored.sums))

    @contextmanager
    def _fresh(self, name: str, mode: int) -> Iterator[int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.path / name, flags, mode)
        try:
            yield fd
        finally:
            os.close(fd)

    def _link(self, source: Path, name: str, facts: FileFacts) -> None:
        """Another name for a file that never changes; a copy where there can't be one."""
        try:
            os.link(source, self.path / name, follow_symlinks=False)
            self._linked.add(name)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK):
                raise
            self._copy(source, name)
        self._files[name] = facts

    def _copy(self, source: Path, name: str) -> None:
        with source.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            with self._fresh(name, mode) as fd:
                copy_sparse(file.fileno(), fd)


@contextmanager
def draft(directory: Path) -> Iterator[Draft]:
    """A snapshot to be made at `directory`: gone at the end of the block unless it is committed.

    Errors: AlreadyExists; NoCapacity when the disk is full at any point in the block.
    """
    _check_is_free(directory)
    made = Draft(directory)
    try:
        _delete(made.path)
        made.path.mkdir(mode=0o700)
        yield made
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoCapacity(
            f"the filesystem of {directory.parent} is full: no snapshot could be made",
            hint="free some space: wrenn snapshot ls and wrenn ls --all say what there is",
        ) from error
    finally:
        if not made.is_committed:
            _delete(made.path)


def share(snapshot: Snapshot, directory: Path, facts: Facts | None = None) -> Snapshot:
    """The same snapshot under another name, with hard links; each may be removed on its own.

    facts: other ones than the original's. Errors: AlreadyExists, NoCapacity.
    """
    with draft(directory) as made:
        made.link(snapshot)
        return made.commit(facts or snapshot.manifest.facts)


def remove(directory: Path) -> None:
    """Remove a snapshot, in one step as far as anybody can see. Nothing happens if there is none.

    What others share of it stays theirs, and what a pager has open stays readable.
    """
    doomed = directory.with_name(directory.name + _SUFFIX)
    _delete(doomed)
    try:
        directory.rename(doomed)
    except FileNotFoundError:
        return
    sync_directory(directory.parent)
    _delete(doomed)


def remove_leftovers(parent: Path) -> list[Path]:
    """Remove what a crash left of drafts and removals in `parent`; say what that was."""
    found = sorted(path for path in parent.glob(f"*{_SUFFIX}") if path.is_dir())
    for path in found:
        _delete(path)
    return found


def generations(sandbox: Path) -> list[int]:
    """The numbers of a sandbox's committed generations, ascending."""
    matches = (_GENERATION.fullmatch(path.name) for path in sandbox.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def _check_is_free(directory: Path) -> None:
    if directory.exists():
        raise AlreadyExists(f"there is a snapshot at {directory} already")


def _disk_facts(path: Path) -> FileFacts:
    return FileFacts(size=path.stat().st_size, checksum=checksums.of_disk(path))


def _needed(parent: Snapshot | None, header: Header) -> Iterator[tuple[str, Path]]:
    """The parent's files that `header` names, as the chain layout names them."""
    if parent is not None:
        for build, path in zip(parent.header.builds, parent.memfiles, strict=True):
            if build in header.builds:
                yield memfile_name(build), path


def _generation(build: str, stored: Stored) -> Generation:
    return Generation(
        build=build,
        created=_now(),
        data_pages=stored.data_pages,
        zero_pages=stored.zero_pages,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _delete(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
