"""What an administrator does to an installation: build images, list them, take a VMM."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from wrennd.archive import outfile
from wrennd.archive.writer import Written
from wrennd.core.config import Config
from wrennd.core.errors import Error, InvalidInput, NotFound
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxSpec
from wrennd.core.space import Pruning, Space
from wrennd.host import exchange, firecracker, own_images, pruning, storage_setup, warming
from wrennd.host import setup as builder
from wrennd.host import space as disk_space
from wrennd.host.backup import Backup, Staged, staged
from wrennd.host.choice import probe_guest
from wrennd.host.local import LocalSandboxes, existing, opened, require_root
from wrennd.host.local_snapshots import LocalSnapshots
from wrennd.host.restore import Restoring
from wrennd.host.restore import restoring as unpacked
from wrennd.images import recipe
from wrennd.storage.images import ImageStore
from wrennd.storage.layout import Layout

GIB = 1 << 30
STDIO = "-"
Report = Callable[[str], None]


def setup(config: Config, *, force: bool, report: Report) -> None:
    """Build the kernel and each image that is missing, and freeze it; all of them with `force`."""
    require_root()
    builder.setup(Layout.prepare(config.data_dir), force=force, report=report)
    with opened(config, report) as here:
        for name in recipe.image_names():
            _freeze(here, name, force=force, report=report)


def _freeze(here: LocalSandboxes, name: str, *, force: bool, report: Report) -> None:
    """An image whose sandboxes can't be made on this host is no less of an image."""
    try:
        parts = here.parts(SandboxSpec(id=new_sandbox_id(), image=name))
    except Error as error:
        report(f"{name}: its sandboxes will boot, since it could not be frozen: {error}")
        return
    warming.ensure(parts, report, force=force)


def make_volume(config: Config, size_gib: int | None, report: Report) -> None:
    """Make a filesystem in which disks can be cloned, for a host that has none."""
    require_root()
    size = None if size_gib is None else size_gib * GIB
    storage_setup.make_volume(Layout.prepare(config.data_dir), size, report)


def take_firecracker(config: Config, file: Path, report: Report) -> None:
    """Check a Firecracker release binary by booting a guest with it, and keep it."""
    require_root()
    firecracker.check_is_program(file)
    layout = Layout.prepare(config.data_dir)
    builder.ensure_kernel(layout, report)
    report(f"firecracker: booting a guest with {file}")
    taken = firecracker.take(file, layout, probe_guest(layout, ImageStore(layout).kernel()))
    report(f"firecracker: {taken} is used from now on")


def images(config: Config) -> list[dict[str, Any]]:
    """The images that are there; looking makes no data directory."""
    require_root()
    layout = Layout.find(config.data_dir)
    return [] if layout is None else [image.to_json() for image in ImageStore(layout).list()]


def build_image(config: Config, file: Path, name: str, *, force: bool, report: Report) -> None:
    """Build the image of a recipe file, under `name`."""
    require_root()
    layout = Layout.prepare(config.data_dir)
    own_images.build(layout, file, name, force=force, report=report)


def import_image(config: Config, name: str, source: Path, disk_mib: int, report: Report) -> None:
    """Make an image of a root filesystem, a directory or a tar of it."""
    require_root()
    layout = Layout.prepare(config.data_dir)
    own_images.take(layout, name, source, disk_mib, report=report)


def remove_image(config: Config, name: str, report: Report) -> None:
    """Remove an image by its name. Errors: NotFound."""
    require_root()
    layout = Layout.find(config.data_dir)
    if layout is None:
        raise NotFound(f"there is no image named {name!r}: {config.data_dir} holds none")
    own_images.remove(layout, name, report)


def export_snapshot(config: Config, what: str, file: Path, *, overwrite: bool) -> Written:
    """A template, or a sandbox's newest snapshot, as one file; `-`: on stdout."""
    snapshot = LocalSnapshots(existing(config)).open(what)
    if os.fspath(file) == STDIO:
        return exchange.export(snapshot, sys.stdout.buffer)
    with outfile.made(file, overwrite=overwrite) as out:
        return exchange.export(snapshot, out)


def import_snapshot(config: Config, file: Path, name: str) -> exchange.Imported:
    """Make a template of an export; `-`: on stdin."""
    require_root()
    layout = Layout.prepare(config.data_dir)
    if os.fspath(file) == STDIO:
        return exchange.take(layout, sys.stdin.buffer, "stdin", name)
    with _opened(file) as stream:
        return exchange.take(layout, stream, os.fspath(file), name)


@contextmanager
def backing_up(config: Config) -> Iterator[Staged]:
    """Everything gathered for a backup, for the block. Errors: NotFound without a data dir."""
    with staged(_layout(config)) as found:
        yield found


def write_backup(found: Staged, file: Path, *, overwrite: bool) -> Backup:
    """`-`: to stdout."""
    if os.fspath(file) == STDIO:
        return found.write(sys.stdout.buffer)
    with outfile.made(file, overwrite=overwrite) as out:
        return found.write(out)


@contextmanager
def restoring(config: Config, file: Path) -> Iterator[Restoring]:
    """As `host/restore.py`; `-`: from stdin."""
    require_root()
    with ExitStack() as held:
        stream, what = sys.stdin.buffer, "stdin"
        if os.fspath(file) != STDIO:
            stream, what = held.enter_context(_opened(file)), os.fspath(file)
        yield held.enter_context(unpacked(config.data_dir, stream, what))


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise InvalidInput(f"{file} can't be read: {error.strerror}") from error


def space(config: Config) -> Space:
    """What takes disk in the data directory. Errors: NotFound without one."""
    return disk_space.space(_layout(config))


def prune(config: Config, *, is_dry_run: bool, with_templates: bool) -> Pruning:
    """As `host/pruning.py`. Errors: NotFound without a data directory, WrongState."""
    return pruning.prune(_layout(config), is_dry_run=is_dry_run, with_templates=with_templates)


def _layout(config: Config) -> Layout:
    require_root()
    layout = Layout.find(config.data_dir)
    if layout is None:
        raise NotFound(
            f"{config.data_dir} is no data directory of Wrenn's",
            hint="--data-dir and WRENN_DATA_DIR say where it is",
        )
    return layout
