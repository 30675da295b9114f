"""A backup made an installation again, in an empty data directory.

Everything is unpacked in `restore.tmp/` of the data directory and looked at; then it is moved into
place, and last comes the installation's id, by which a directory is one of ours. A restore that is
killed is none: the next one begins anew.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wrennd.archive.document import ArchiveError, Document, Kind, Member
from wrennd.archive.failures import explained
from wrennd.archive.reader import Archive
from wrennd.core.errors import (
    AlreadyExists,
    NoCapacity,
)
from wrennd.core.ids import INSTALLATION_ID
from wrennd.core.sizes import MIB, format_bytes
from wrennd.host.backup import FIRECRACKER, KIND, RECORD, SERVER
from wrennd.host.record import Record
from wrennd.linux import files
from wrennd.snapshot.reader import open_snapshot
from wrennd.storage.images import Manifest
from wrennd.storage.layout import INSTALLATION, Layout

MAX_DOCUMENT = 128 << 20
PLACE = "restore.tmp"
_SPARE_BYTES = 256 * MIB
_TOPS = ("images", "kernels", "names", "templates", "sandboxes", FIRECRACKER)
# What may be where: by the member's kind, in parts of its path.
_ID, _DIGEST = "[a-z0-9]{20}", "[0-9a-f]{32}"
_PLACES = {
    Kind.DIRECTORY: re.compile(
        rf"images(/{_DIGEST})?|kernels(/{_DIGEST})?|names|templates(/{_ID})?|vmm|server|"
        rf"sandboxes(/{_ID}(/gen-[0-9]{{1,9}})?)?"
    ),
    Kind.SYMLINK: re.compile(r"names/[a-z0-9][a-z0-9._-]{0,62}|kernels/current"),
}
_TARGET = re.compile(rf"\.\./images/{_DIGEST}|\.\./templates/{_ID}|{_DIGEST}")
_FILE = re.compile(
    rf"(images|kernels)/{_DIGEST}/[a-z0-9.]+|templates/{_ID}/[a-z0-9.]+|vmm/firecracker|"
    rf"server/[a-z.]+|sandboxes/{_ID}(/gen-[0-9]{{1,9}})?/[a-z0-9.]+"
)


@dataclass(frozen=True, kw_only=True)
class Restoring:
    """A backup that is unpacked and not yet in place. server: what the server kept."""

    layout: Layout
    server: Path
    sandboxes: int
    is_again: bool


@contextmanager
def restoring(data_dir: Path, stream: BinaryIO, what: str) -> Iterator[Restoring]:
    """A backup unpacked; at the end of the block it is the installation of `data_dir`.

    what: the file's name, for errors. is_again: a restore into this directory was broken off
    before. Errors: AlreadyExists (the directory is not empty), SnapshotBroken (cut short, changed,
    no backup), SnapshotIncompatible (another version), NoCapacity. Then nothing is left.
    """
    is_again = _check_is_free(data_dir)
    with explained(what, "restored"):
        archive = Archive(stream, max_document=MAX_DOCUMENT)
        _check_document(archive.document)
    with ExitStack() as undo:
        place = _place(data_dir, undo)
        _check_room(data_dir, archive.document.data_bytes)
        with explained(what, "restored"):
            archive.unpack(place)
            _finish_published(place)
            sandboxes = _check_sandboxes(place)
        installation = archive.document.about["installation"]
        yield Restoring(
            layout=Layout(data_dir=data_dir, installation=installation),
            server=place / SERVER,
            sandboxes=sandboxes,
            is_again=is_again,
        )
        for name in _TOPS:
            if (place / name).exists():
                (place / name).rename(data_dir / name)
        files.sync_directory(data_dir)
        files.write_atomic(data_dir / INSTALLATION, f"{installation}\n".encode())
        undo.pop_all()
    shutil.rmtree(place)


def _check_is_free(data_dir: Path) -> bool:
    """Whether what is there is a broken off restore. Errors: AlreadyExists."""
    there = {path.name for path in data_dir.iterdir()} if data_dir.is_dir() else set()
    there -= {"lost+found"}
    is_again = PLACE in there and INSTALLATION not in there and not there - {PLACE, *_TOPS}
    if there and not is_again:
        raise AlreadyExists(
            f"{data_dir} is not empty: a backup is restored into a directory of its own",
            hint="choose another one with --data-dir; wrenn uninstall --purge empties this one",
        )
    return is_again


def _place(data_dir: Path, undo: ExitStack) -> Path:
    """The empty place to unpack in. `undo` removes it, and the data directory if that is new."""
    if not data_dir.exists():
        data_dir.mkdir(mode=0o700, parents=True)
        undo.callback(data_dir.rmdir)
    data_dir.chmod(0o700)
    for name in (*_TOPS, PLACE):  # of a restore that was broken off: the mark goes last
        if (data_dir / name).exists():
            shutil.rmtree(data_dir / name)
    place = data_dir / PLACE
    place.mkdir(mode=0o700)
    undo.callback(_remove, data_dir)
    return place


def _remove(data_dir: Path) -> None:
    for name in (*_TOPS, PLACE):
        shutil.rmtree(data_dir / name, ignore_errors=True)


def _check_room(data_dir: Path, wanted: int) -> None:
    free = shutil.disk_usage(data_dir).free
    if wanted + _SPARE_BYTES > free:
        raise NoCapacity(
            f"the backup needs {format_bytes(wanted + _SPARE_BYTES)} of {data_dir}, "
            f"where {format_bytes(free)} are free",
            hint="choose another disk with --data-dir",
        )


def _check_document(document: Document) -> None:
    """That it is a backup, and everything in it has its place. Errors: ArchiveError."""
    if document.kind != KIND:
        raise ArchiveError(f"it is a {document.kind[:20]!r}, not a {KIND}")
    if not INSTALLATION_ID.fullmatch(document.about.get("installation", "")):
        raise ArchiveError("it is of no installation")
    for member in document.members:
        if not _PLACES.get(member.kind, _FILE).fullmatch(member.path):
            raise ArchiveError(f"a backup has no {member.kind} {member.path}")
        _check_target(member)


def _check_target(member: Member) -> None:
    if member.kind is Kind.SYMLINK and not _TARGET.fullmatch(member.target):
        raise ArchiveError(f"{member.path} can't lead to {member.target}")


def _finish_published(place: Path) -> None:
    """Images and kernels are known by their files' times, too. Errors: ArchiveError."""
    for top in ("images", "kernels"):
        for path in (place / top).glob("*/manifest.json"):
            try:
                manifest = Manifest.decode(path.read_bytes())
                for name, facts in manifest.files.items():
                    if "/" in name or not (path.parent / name).is_file():
                        raise ArchiveError(f"{top}/{path.parent.name} has no {name}")
                    os.utime(path.parent / name, ns=(facts.mtime_ns, facts.mtime_ns))
            except (ValueError, TypeError, OverflowError) as error:
                raise ArchiveError(f"{top}/{path.parent.name} makes no sense: {error}") from error


def _check_sandboxes(place: Path) -> int:
    """How many there are. Errors: ArchiveError, SnapshotBroken."""
    for directory in (place / "templates").glob("*"):
        open_snapshot(directory)
    count = 0
    for directory in (place / "sandboxes").glob("*"):
        try:
            found = Record.decode((directory / RECORD).read_bytes())
        except (OSError, ValueError) as error:
            raise ArchiveError(f"the record of sandbox {directory.name}: {error}") from error
        if found.id != directory.name:
            raise ArchiveError(f"the record of sandbox {directory.name} is of {found.id[:40]!r}")
        if found.generation:
            open_snapshot(directory / f"gen-{found.generation}")
        count += 1
    return count
