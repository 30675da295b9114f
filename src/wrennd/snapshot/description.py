"""A snapshot as `wrenn snapshot show` tells of it: its generations, and what each takes."""

from dataclasses import dataclass
from datetime import datetime

from wrennd.snapshot.header import ZERO
from wrennd.snapshot.manifest import Generation
from wrennd.snapshot.reader import Snapshot


@dataclass(frozen=True, kw_only=True)
class GenerationRow:
    """One generation. pages: of it, still in use. disk_bytes: what its file takes on the disk,
    whoever shares it. shared_by: other snapshots that have the same file.
    """

    build: str
    age_s: float
    pages: int
    stored_pages: int
    zero_pages: int
    disk_bytes: int
    shared_by: int


@dataclass(frozen=True, kw_only=True)
class Description:
    """The whole. zero_pages: of the guest's memory as it is. own_bytes: what removing the
    snapshot would free; disk_bytes: that, and what it shares with others.
    """

    rows: tuple[GenerationRow, ...]
    pages: int
    zero_pages: int
    disk_bytes: int
    own_bytes: int


def describe(snapshot: Snapshot, now: datetime) -> Description:
    """Sizes are of blocks, not of lengths: the files are sparse."""
    status = [(snapshot.directory / name).lstat() for name in snapshot.manifest.files]
    return Description(
        rows=tuple(_row(snapshot, generation, now) for generation in snapshot.manifest.generations),
        pages=snapshot.header.pages,
        zero_pages=snapshot.header.table.count(ZERO),
        disk_bytes=sum(found.st_blocks * 512 for found in status),
        own_bytes=sum(found.st_blocks * 512 for found in status if found.st_nlink == 1),
    )


def _row(snapshot: Snapshot, generation: Generation, now: datetime) -> GenerationRow:
    header = snapshot.header
    pages = disk_bytes = shared_by = 0
    if generation.build in header.builds:
        source = header.builds.index(generation.build) + 1
        found = snapshot.memfiles[source - 1].stat()
        pages = header.table.count(source)
        disk_bytes, shared_by = found.st_blocks * 512, found.st_nlink - 1
    return GenerationRow(
        build=generation.build,
        age_s=(now - datetime.fromisoformat(generation.created)).total_seconds(),
        pages=pages,
        stored_pages=generation.data_pages,
        zero_pages=generation.zero_pages,
        disk_bytes=disk_bytes,
        shared_by=shared_by,
    )
