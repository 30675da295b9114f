"""Snapshots on their way from one machine to another: exported into one file, imported from it.

An export has all files of a snapshot as they are (docs/archive-format.md), so it needs nothing of
the machine that it comes to: no image, no kernel, no other snapshot. Whether its memory fits the
VMM and the CPU there is looked at when a sandbox is made of it, as ever.

An import is unpacked in `incoming/`, where nobody looks for snapshots, read as a whole and compared
with its checksums (`import_check.py`), and only then linked into a template, which appears in one
step. Lock: `incoming/.lock`, one import at a time; what a killed one left goes with the next, or
with a prune.
"""

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from wrennd import __version__
from wrennd.archive.document import Member
from wrennd.archive.failures import explained
from wrennd.archive.reader import Archive
from wrennd.archive.writer import Source, Written, write
from wrennd.core.errors import InvalidInput
from wrennd.core.ids import check_name, new_sandbox_id
from wrennd.host import import_check, templates
from wrennd.host.agent.admission import Admission
from wrennd.host.agent.catalogue import Catalogue
from wrennd.linux import files
from wrennd.snapshot import store
from wrennd.snapshot.reader import MANIFEST, Snapshot, read_manifest
from wrennd.storage.layout import Layout

KIND = "snapshot"
MAX_DOCUMENT = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import has made: the template's name, and bytes of content."""

    name: str
    data_bytes: int


def export(snapshot: Snapshot, out: BinaryIO) -> Written:
    """Write a snapshot to a stream. It may be removed meanwhile. Errors: OSError."""
    facts = snapshot.manifest.facts
    about = {"name": facts.name, "sandbox": facts.sandbox, "wrenn": __version__}
    with ExitStack() as held:
        sources = []
        for name in (MANIFEST, *sorted(snapshot.manifest.files)):
            path = snapshot.directory / name
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            held.callback(os.close, fd)
            size = os.fstat(fd).st_size
            sources.append(Source(member=Member(path=name, size=size), file=fd))
        return write(out, KIND, sources, about)


def take(layout: Layout, stream: BinaryIO, what: str, name: str = "") -> Imported:
    """Make a template of an export.

    what: the file's name, for errors. name: the template's; empty: as in the export. Errors:
    SnapshotBroken (cut short, changed, no export), SnapshotIncompatible (another version),
    AlreadyExists, InvalidInput, NoCapacity. Then nothing is left of it.
    """
    with explained(what, "imported"):
        archive = Archive(stream, max_document=MAX_DOCUMENT)
        import_check.check_document(archive.document, KIND)
    name = _name(name or archive.document.about.get("name", ""))
    templates.check_is_free(layout, name)
    _check_room(layout, archive.document.data_bytes)
    with files.locked(lock_file(layout)), ExitStack() as held:
        remove_leftovers(layout)
        directory = layout.incoming / new_sandbox_id()
        snapshot = _unpacked(archive, directory, what)
        held.callback(store.remove, directory)
        import_check.check_content(snapshot, what)
        _check_room(layout, import_check.flat_bytes(snapshot))
        templates.add(layout, name, snapshot, replace(snapshot.manifest.facts, name=name))
    return Imported(name=name, data_bytes=archive.document.data_bytes)


def lock_file(layout: Layout) -> Path:
    return layout.incoming / ".lock"


def leftovers(layout: Layout) -> list[Path]:
    """What an import unpacks; for the holder of the lock, what killed ones left."""
    return sorted(path for path in layout.incoming.iterdir() if path.is_dir())


def remove_leftovers(layout: Layout) -> None:
    """For the holder of the lock."""
    for path in leftovers(layout):
        store.remove(path)
    store.remove_leftovers(layout.incoming)


def _name(name: str) -> str:
    if not name:
        raise InvalidInput(
            "this export has no name, as it is of a paused sandbox", hint="give one with --name"
        )
    return check_name(name, "template")


def _check_room(layout: Layout, wanted_bytes: int) -> None:
    """Beside what the pauses of all that runs would take. Errors: NoCapacity."""
    Admission(layout, Catalogue(layout), 1.0).check_disk("", wanted_bytes, "the import")


def _unpacked(archive: Archive, directory: Path, what: str) -> Snapshot:
    """The snapshot at `directory`, complete as far as its own manifest goes."""
    with explained(what, "imported"), store.draft(directory) as made:
        archive.unpack(made.path)
        manifest = read_manifest(made.path)
        import_check.check_manifest(manifest, archive.document)
        (made.path / MANIFEST).unlink()
        made.take_files(manifest)
        return made.commit(manifest.facts)
