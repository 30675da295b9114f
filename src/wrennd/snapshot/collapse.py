"""Many generations of memory into one, by copying files: no VM is needed, and none is held up."""

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from wrennd.linux.files import copy_run
from wrennd.snapshot.chain import collapsed, copies
from wrennd.snapshot.header import PAGE_SIZE, ZERO, memfile_name
from wrennd.snapshot.manifest import Generation, Manifest
from wrennd.snapshot.reader import Pages, Snapshot
from wrennd.snapshot.store import draft
from wrennd.snapshot.writer import Writeback

MAX_INCREMENTAL = 10


def is_due(manifest: Manifest, max_incremental: int = MAX_INCREMENTAL) -> bool:
    """Whether there are more incremental generations behind the full one than may be."""
    return len(manifest.generations) > 1 + max_incremental


def collapse(snapshot: Snapshot, directory: Path) -> Snapshot:
    """A snapshot at `directory` of the same guest, with one generation. The old one stays.

    The checksums of pages stay as they are, so damage that is there stays to be found. Errors:
    NoCapacity; AlreadyExists; OSError when a file can't be read.
    """
    build = secrets.token_hex(16)
    with draft(directory) as made:
        made.link(snapshot, memory=False)
        if snapshot.header.builds:
            with Pages.opened(snapshot) as pages, made.fresh_memory(memfile_name(build)) as target:
                merge(pages, target)
        header = collapsed(snapshot.header, build)
        data_pages = header.pages - header.table.count(ZERO)
        generation = Generation(
            build=build,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            data_pages=data_pages,
            zero_pages=0,
        )
        made.set_collapsed(header, generation)
        return made.commit(snapshot.manifest.facts)


def merge(pages: Pages, target: int) -> None:
    """Copy every page that is not zero to its place in the empty file `target`, in order.

    In the kernel; filesystems that share extents share them. Errors: OSError.
    """
    os.ftruncate(target, pages.header.size)
    writeback = Writeback(target)
    for start, stop, source in copies(pages.header):
        copy_run(pages.fd(source), target, start * PAGE_SIZE, stop * PAGE_SIZE)
        writeback.wrote(start, stop)
