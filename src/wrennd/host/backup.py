"""A backup of one installation in one file: images, kernels, templates, and sandboxes as they last
were when they stood still; what the server keeps is put beside them by the caller.

Nothing is stopped for it. What never changes (generations, templates) is hard-linked into a place
of its own first, which takes milliseconds, and written from there. A sandbox that runs is kept as
of its newest snapshot, as if it had been paused then; one that has none is named as missing.

Locks: the setup lock for all of it, so that no image goes meanwhile; `incoming/.lock`, where the
links are; `templates/.lock` while templates are linked; of a sandbox in error, whose disk could be
started, its own for all of it.
"""

import dataclasses
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from wrennd import __version__
from wrennd.archive.document import MODES, Kind, Member
from wrennd.archive.writer import Source, Written, write
from wrennd.core.errors import NotFound, SnapshotBroken, WrongState
from wrennd.core.states import State
from wrennd.host import exchange, record, templates
from wrennd.host.reclaim import ids
from wrennd.host.record import Owner, Record
from wrennd.host.recovery import NOTHING_HELD
from wrennd.host.warm import has_snapshot
from wrennd.linux import files
from wrennd.snapshot.reader import BASE_PREFIX, MANIFEST, open_snapshot
from wrennd.storage.layout import Layout, SandboxPaths

KIND = "backup"
SERVER = "server"  # where in a backup lies what the server keeps
FIRECRACKER = "vmm"
RECORD, LOCK = "record.json", "owner.lock"
_TRIES = 20  # a generation may be replaced while it is linked


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What is in it. notes: what is not, and why; sentences."""

    sandboxes: int
    templates: int
    images: int
    notes: tuple[str, ...]
    written: Written


@dataclass
class _Stage:
    """The place where links are gathered, and what is told of them."""

    path: Path
    notes: list[str] = field(default_factory=list)
    sandboxes: int = 0
    templates: int = 0


@contextmanager
def staged(layout: Layout) -> Iterator["Staged"]:
    """Everything gathered, for the block; `server` is where the caller may put more."""
    with ExitStack() as held:
        held.enter_context(files.locked(layout.setup_lock))
        held.enter_context(files.locked(exchange.lock_file(layout)))
        exchange.remove_leftovers(layout)
        stage = _Stage(layout.incoming / "backup.tmp")
        stage.path.mkdir(mode=0o700)
        held.callback(shutil.rmtree, stage.path)
        for name in (SERVER, layout.templates.name, layout.sandboxes.name):
            (stage.path / name).mkdir(mode=0o700)
        _stage_templates(layout, stage)
        for sandbox_id in sorted(ids(layout)):
            _stage_sandbox(layout.sandbox(sandbox_id), layout, stage, held)
        yield Staged(layout, stage)


class Staged:
    """A backup that is to be written."""

    def __init__(self, layout: Layout, stage: _Stage) -> None:
        self._layout, self._stage = layout, stage
        self.server = stage.path / SERVER

    def note(self, text: str) -> None:
        self._stage.notes.append(text)

    def write(self, out: BinaryIO) -> Backup:
        """Errors: OSError."""
        layout, stage = self._layout, self._stage
        sources = _Sources()
        for directory in (layout.images, layout.kernels):
            sources.add_directory(directory.name)
            for path in _published(directory):
                sources.add_tree(path, f"{directory.name}/{path.name}")
        if layout.current_kernel.is_symlink():
            sources.add_symlink(layout.current_kernel, f"{layout.kernels.name}/current")
        sources.add_directory(layout.names.name)
        for link in sorted(layout.names.iterdir()):
            if link.is_symlink() and self._has(link):
                sources.add_symlink(link, f"{layout.names.name}/{link.name}")
        if layout.firecracker.exists():
            sources.add_directory(FIRECRACKER)
            sources.add_file(layout.firecracker, f"{FIRECRACKER}/{layout.firecracker.name}", 0o755)
        for path in sorted(stage.path.iterdir()):
            sources.add_tree(path, path.name)
        about = {"installation": layout.installation, "wrenn": __version__}
        written = write(out, KIND, sources.all, about)
        return Backup(
            sandboxes=stage.sandboxes,
            templates=stage.templates,
            images=len(_published(layout.images)),
            notes=tuple(stage.notes),
            written=written,
        )

    def _has(self, link: Path) -> bool:
        """Whether what a name means is in the backup: a template may have come or gone since."""
        target = link.readlink()
        where = self._stage.path if target.parent.name == "templates" else self._layout.store
        return (where / target.parent.name / target.name).is_dir()


def _published(directory: Path) -> list[Path]:
    return [
        path
        for path in sorted(directory.iterdir())
        if path.is_dir() and not path.is_symlink() and not path.name.endswith(".tmp")
    ]


def _stage_templates(layout: Layout, stage: _Stage) -> None:
    with templates.lock(layout):
        for template in templates.every(layout):
            target = stage.path / layout.templates.name / template.directory.name
            try:
                _link_snapshot(template.directory, target)
            except (SnapshotBroken, NotFound) as error:
                stage.notes.append(f"template {template.name} is not in it: {error}")
            else:
                stage.templates += 1


def _stage_sandbox(paths: SandboxPaths, layout: Layout, stage: _Stage, held: ExitStack) -> None:
    """As it last stood still. What belongs to a `wrenn run` ends with that, and is in no backup."""
    name, target = paths.data.name, stage.path / layout.sandboxes.name / paths.data.name
    for left in reversed(range(_TRIES)):
        try:
            found = record.load(paths)
            if found.owner is Owner.PROCESS or found.state is State.DESTROYING:
                return
            note = _stage_found(found, paths, target, layout, held)
        except (NotFound, FileNotFoundError, SnapshotBroken) as error:
            shutil.rmtree(target, ignore_errors=True)
            if left and paths.data.exists():  # its snapshot was replaced while it was linked
                continue
            note = f"it is broken: {error}" if paths.data.exists() else ""
        except WrongState as error:  # its record can't be read, or its disk is being started
            shutil.rmtree(target, ignore_errors=True)
            note = str(error)
        if target.exists():
            stage.sandboxes += 1
        if note:
            stage.notes.append(f"sandbox {name}: {note}")
        return


def _stage_found(
    found: Record, paths: SandboxPaths, target: Path, layout: Layout, held: ExitStack
) -> str:
    """Its record as it will be, its snapshot, and in error its disk. A clause if that is not all.

    Errors: NotFound, FileNotFoundError, SnapshotBroken: it was changed meanwhile, or is damaged;
    WrongState.
    """
    is_still = found.state in (State.PAUSED, State.ERROR)
    if found.state is not State.ERROR and not has_snapshot(paths, found):
        return f"it is {found.state} and has no snapshot: it is not in the backup"
    target.mkdir(mode=0o700)
    if found.state is State.ERROR:
        _stage_disk(paths, target, layout, held)
    if found.generation:
        name = paths.generation(found.generation).name
        _link_snapshot(paths.generation(found.generation), target / name)
    kept = dataclasses.replace(found, **NOTHING_HELD, boot_id="")
    if not is_still:
        kept = dataclasses.replace(
            kept,
            state=State.PAUSED,
            revision=found.revision + 1,
            cause=record.RECLAIM,
            parent=found.generation,
            needs_full=False,
        )
    (target / RECORD).write_bytes(kept.encode())
    (target / LOCK).touch(mode=0o600)
    return "" if is_still else f"it is {found.state}, and kept as of its newest snapshot"


def _stage_disk(paths: SandboxPaths, target: Path, layout: Layout, held: ExitStack) -> None:
    """The disk of one in error, which nobody can start until the backup is written."""
    if not held.enter_context(record.taken_over(layout, paths)):
        raise WrongState("it is in the hands of another command: it is not in the backup")
    if record.load(paths).state is not State.ERROR:
        raise NotFound("it is no longer in error")
    for path in (paths.disk, *paths.data.glob(f"{BASE_PREFIX}*"), paths.token, paths.last_console):
        if path.exists():
            os.link(path, target / path.name)


def _link_snapshot(source: Path, target: Path) -> None:
    """Errors: FileNotFoundError, NotFound, SnapshotBroken: it goes, or is damaged."""
    target.mkdir(mode=0o700)
    for name in (MANIFEST, *open_snapshot(source).manifest.files):
        os.link(source / name, target / name)
    open_snapshot(target)


class _Sources:
    """The members of a backup, as they are found. Names of one file are links of the first."""

    def __init__(self) -> None:
        self.all: list[Source] = []
        self._inodes: dict[tuple[int, int], str] = {}

    def add_directory(self, name: str) -> None:
        self.all.append(Source(member=Member(path=name, kind=Kind.DIRECTORY, mode=0o700)))

    def add_symlink(self, link: Path, name: str) -> None:
        target = os.fspath(link.readlink())
        self.all.append(Source(member=Member(path=name, kind=Kind.SYMLINK, target=target)))

    def add_file(self, path: Path, name: str, mode: int) -> None:
        found = path.lstat()
        key = (found.st_dev, found.st_ino)
        if key in self._inodes:
            member = Member(path=name, kind=Kind.LINK, target=self._inodes[key])
            self.all.append(Source(member=member))
            return
        self._inodes[key] = name
        member = Member(path=name, size=found.st_size, mode=mode)
        self.all.append(Source(member=member, file=path))

    def add_tree(self, directory: Path, name: str) -> None:
        """A directory of ours with all below it."""
        self.add_directory(name)
        for path in sorted(directory.iterdir()):
            below = f"{name}/{path.name}"
            if path.is_dir():
                self.add_tree(path, below)
            else:
                mode = path.stat().st_mode & 0o777
                self.add_file(path, below, mode if mode in MODES else 0o600)
