"""Snapshots as they are found: opened only if complete, their pages read through the header.

Opening reads the small files and looks at the sizes of the large ones; what it would take to find
damage inside those is `verify.py`. Readers need no lock: a committed snapshot never changes, and
what was opened stays readable when its directory is removed.
"""

import os
import stat
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wrennd.core.errors import NotFound, SnapshotBroken, SnapshotIncompatible
from wrennd.linux.files import data_runs
from wrennd.snapshot import checksums
from wrennd.snapshot.header import PAGE_SIZE, Header, HeaderError, memfile_name
from wrennd.snapshot.manifest import (
    MAX_BYTES,
    FileFacts,
    Layout,
    Manifest,
    ManifestError,
    NewerFormat,
)
from wrennd.snapshot.sums import SumsError, decode_sums

MANIFEST = "manifest.json"
HEADER = "header"
SUMS = "sums"
MEMFILE = "memfile"  # of the single-file layout
STATE = "state"
DISK = "rootfs.ext4"
BASE_PREFIX = "base."  # of what such a disk differs from, if it does (docs/storage.md)
TOKEN = "token"
TOUCHED = "touched"
_NEEDED = (SUMS, STATE, DISK, TOKEN)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A complete snapshot. `header` covers every page of the guest, in either layout."""

    directory: Path
    manifest: Manifest
    header: Header

    @property
    def state(self) -> Path:
        return self.directory / STATE

    @property
    def disk(self) -> Path:
        """Immutable: clone it."""
        return self.directory / DISK

    @property
    def touched(self) -> Path | None:
        """The recorded working set, if there is one."""
        return self.directory / TOUCHED if TOUCHED in self.manifest.files else None

    @property
    def memfiles(self) -> tuple[Path, ...]:
        """The files of the header's builds, in its order."""
        return tuple(self.directory / name for name in self.memfile_names)

    @property
    def memfile_names(self) -> tuple[str, ...]:
        if self.manifest.layout is Layout.SINGLE:
            return (MEMFILE,) * len(self.header.builds)
        return tuple(memfile_name(build) for build in self.header.builds)

    def read_token(self) -> str:
        """What the guest's agent must be shown first after a restore. A secret."""
        return (self.directory / TOKEN).read_text()

    def read_sums(self) -> "array[int]":
        """The checksum of each page. Errors: SnapshotBroken."""
        try:
            sums = decode_sums(_read_checked(self.directory, SUMS, self.manifest.files[SUMS]))
        except SumsError as error:
            raise _broken(self.directory, f"{SUMS}: {error}") from error
        if len(sums) != self.header.pages:
            raise _broken(self.directory, f"{SUMS} is not of {self.header.pages} pages")
        return sums


def exists(directory: Path) -> bool:
    """Whether there is a snapshot of either layout, by its names only."""
    return (directory / MANIFEST).is_file() and (
        (directory / HEADER).is_file() or (directory / MEMFILE).is_file()
    )


def open_snapshot(directory: Path) -> Snapshot:
    """Errors: NotFound; SnapshotIncompatible for a newer format; SnapshotBroken names the file."""
    manifest = read_manifest(directory)
    for name, facts in manifest.files.items():
        _check_file(directory, name, facts)
    memory = MEMFILE if manifest.layout is Layout.SINGLE else HEADER
    for name in (*_NEEDED, memory):
        if name not in manifest.files:
            raise _broken(directory, f"its manifest names no {name}")
    header = read_header(directory, manifest)
    if header.size != manifest.mem_bytes:
        raise _broken(
            directory,
            f"its memory has {header.size} bytes, and its guest {manifest.mem_bytes}",
        )
    snapshot = Snapshot(directory=directory, manifest=manifest, header=header)
    _check_memory(snapshot)
    return snapshot


class Pages:
    """The pages of a snapshot's guest, read through its header from files that stay open."""

    def __init__(self, header: Header, fds: tuple[int, ...]) -> None:
        self.header = header
        self._fds = fds

    @classmethod
    @contextmanager
    def opened(cls, snapshot: Snapshot) -> Iterator[Self]:
        with ExitStack() as held:
            fds = []
            for path in snapshot.memfiles:
                fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
                held.callback(os.close, fds[-1])
            yield cls(snapshot.header, tuple(fds))

    @classmethod
    def zero(cls, pages: int) -> Self:
        return cls(Header.zero(pages), ())

    def fd(self, source: int) -> int:
        """The file of a source (not ZERO). It stays ours."""
        return self._fds[source - 1]

    def read(self, page: int) -> bytes:
        """One page that is not a zero page. Errors: SnapshotBroken when its file ends before."""
        source = self.header.table[page]
        found = os.pread(self.fd(source), PAGE_SIZE, page * PAGE_SIZE)
        if len(found) < PAGE_SIZE:
            build = self.header.builds[source - 1]
            raise SnapshotBroken(f"{memfile_name(build)} ends before page {page}")
        return found


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """A small file, and at most one byte more than it may have."""
    with path.open("rb") as file:
        return file.read(max_bytes + 1)


def read_manifest(directory: Path) -> Manifest:
    """Errors: NotFound, SnapshotBroken, SnapshotIncompatible."""
    if not directory.is_dir():
        raise NotFound(f"there is no snapshot at {directory}")
    try:
        return Manifest.decode(read_bounded(directory / MANIFEST, MAX_BYTES))
    except FileNotFoundError as error:
        raise _broken(directory, f"it has no {MANIFEST}") from error
    except NewerFormat as error:
        raise SnapshotIncompatible(
            f"snapshot {directory} was made by a newer Wrenn: {error}", hint="upgrade this Wrenn"
        ) from error
    except ManifestError as error:
        raise _broken(directory, f"{MANIFEST}: {error}") from error


def read_header(directory: Path, manifest: Manifest) -> Header:
    """What holds which page, in either layout. Errors: SnapshotBroken."""
    if manifest.layout is Layout.SINGLE:
        return _single_header(directory, manifest)
    try:
        return Header.decode(_read_checked(directory, HEADER, manifest.files[HEADER]))
    except HeaderError as error:
        raise _broken(directory, f"{HEADER}: {error}") from error


def _single_header(directory: Path, manifest: Manifest) -> Header:
    """What a raw image says of itself: holes are zero pages, all else is of its one build."""
    table = bytearray(manifest.mem_bytes // PAGE_SIZE)
    fd = os.open(directory / MEMFILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for start, end in data_runs(fd, manifest.mem_bytes):
            first, last = start // PAGE_SIZE, -(-end // PAGE_SIZE)
            table[first:last] = b"\1" * (last - first)
    finally:
        os.close(fd)
    return Header((manifest.generations[0].build,) if any(table) else (), bytes(table))


def _read_checked(directory: Path, name: str, facts: FileFacts) -> bytes:
    """A file that is small enough to be checked whenever it is read."""
    data = read_bounded(directory / name, facts.size)
    found = checksums.of_bytes(data)
    if found != facts.checksum:
        raise _broken(directory, f"{name} has checksum {found}, not {facts.checksum}")
    return data


def _check_file(directory: Path, name: str, facts: FileFacts) -> None:
    try:
        found = (directory / name).lstat()
    except FileNotFoundError as error:
        raise _broken(directory, f"it has no {name}") from error
    if not stat.S_ISREG(found.st_mode):
        raise _broken(directory, f"{name} is not a regular file")
    if found.st_size != facts.size:
        raise _broken(directory, f"{name} has {found.st_size} bytes, not {facts.size}")


def _check_memory(snapshot: Snapshot) -> None:
    """The header's files are those of the manifest, and as long as the memory."""
    manifest, header = snapshot.manifest, snapshot.header
    named = {name for name in manifest.files if name.partition(".")[0] == MEMFILE}
    wanted = set(snapshot.memfile_names)
    if manifest.layout is Layout.SINGLE:
        wanted = {MEMFILE}
    if named != wanted:
        raise _broken(
            snapshot.directory,
            f"it has {', '.join(sorted(named)) or 'no memory files'}, "
            f"and its header names {', '.join(sorted(wanted)) or 'none'}",
        )
    for name in named:
        if manifest.files[name].size != header.size:
            raise _broken(
                snapshot.directory,
                f"{name} has {manifest.files[name].size} bytes, and the memory {header.size}",
            )
    unknown = set(header.builds) - {generation.build for generation in manifest.generations}
    if unknown:
        raise _broken(snapshot.directory, f"no generation wrote {', '.join(sorted(unknown))}")


def _broken(directory: Path, what: str) -> SnapshotBroken:
    return SnapshotBroken(
        f"snapshot {directory} is broken: {what}",
        hint="wrenn snapshot verify says what else is wrong with it",
    )
