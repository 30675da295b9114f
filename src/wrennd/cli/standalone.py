"""The one door from the command to this machine, for as long as no server runs on it.

What it opens is imported when it is opened: `wrenn version` and `--help` need none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from wrennd.core.config import Config
    from wrennd.core.sandboxes import Listed, ListedTemplate, Snapshots
    from wrennd.core.space import Pruning, Space
    from wrennd.host.backup import Backup, Staged
    from wrennd.host.doctor import Check
    from wrennd.host.local import LocalSandboxes
    from wrennd.host.restore import Restoring

    Report = Callable[[str], None]


def making(config: Config, report: Report) -> AbstractContextManager[LocalSandboxes]:
    """To make sandboxes: what is half made, or temporary, ends with this process."""
    from wrennd.host.local import opened

    return opened(config, report)


def changing(config: Config) -> AbstractContextManager[LocalSandboxes]:
    """To change sandboxes that are there: what is half done when this process is killed is finished
    or undone by another. Errors: NotFound when there can be none."""
    from wrennd.host.local import changing

    return changing(config)


def existing(config: Config) -> LocalSandboxes:
    """To use the sandboxes that are there. Errors: NotFound when there can be none."""
    from wrennd.host.local import existing

    return existing(config)


def listed(config: Config) -> list[Listed]:
    """All sandboxes; looking makes no data directory."""
    from wrennd.host.local import listed

    return listed(config)


def snapshots(sandboxes: LocalSandboxes) -> Snapshots:
    """Snapshots of the sandboxes that `changing` or `existing` gave."""
    from wrennd.host.local_snapshots import LocalSnapshots

    return LocalSnapshots(sandboxes)


def templates(config: Config) -> list[ListedTemplate]:
    """All snapshot templates; looking makes no data directory."""
    from wrennd.host.local_snapshots import listed

    return listed(config)


def console(config: Config, sandbox_id: str, offset: int) -> tuple[bytes, int]:
    """A piece of a sandbox's console, or of what was kept of it; and which console it is.

    Errors: NotFound, WrongState when there is none.
    """
    from wrennd.host.local import read_console

    found = read_console(config, sandbox_id, offset)
    return found.content, found.file


def setup(config: Config, *, force: bool, report: Report) -> None:
    from wrennd.host.administer import setup

    setup(config, force=force, report=report)


def make_volume(config: Config, size_gib: int | None, report: Report) -> None:
    from wrennd.host.administer import make_volume

    make_volume(config, size_gib, report)


def take_firecracker(config: Config, file: Path, report: Report) -> None:
    from wrennd.host.administer import take_firecracker

    take_firecracker(config, file, report)


def images(config: Config) -> list[dict[str, Any]]:
    from wrennd.host.administer import images

    return images(config)


def build_image(config: Config, file: Path, name: str, *, force: bool, report: Report) -> None:
    from wrennd.host.administer import build_image

    build_image(config, file, name, force=force, report=report)


def import_image(config: Config, name: str, source: Path, disk_mib: int, report: Report) -> None:
    from wrennd.host.administer import import_image

    import_image(config, name, source, disk_mib, report)


def remove_image(config: Config, name: str, report: Report) -> None:
    from wrennd.host.administer import remove_image

    remove_image(config, name, report)


def export_snapshot(config: Config, what: str, file: Path, *, overwrite: bool) -> int:
    """How many bytes the file has; `-`: stdout."""
    from wrennd.host.administer import export_snapshot

    return export_snapshot(config, what, file, overwrite=overwrite).bytes


def import_snapshot(config: Config, file: Path, name: str) -> str:
    """The template's name; `-`: stdin."""
    from wrennd.host.administer import import_snapshot

    return import_snapshot(config, file, name).name


def backing_up(config: Config) -> AbstractContextManager[Staged]:
    """Everything gathered for a backup, for the block. Errors: NotFound without a data dir."""
    from wrennd.host.administer import backing_up

    return backing_up(config)


def write_backup(staged: Staged, file: Path, *, overwrite: bool) -> Backup:
    """`-`: to stdout."""
    from wrennd.host.administer import write_backup

    return write_backup(staged, file, overwrite=overwrite)


def restoring(config: Config, file: Path) -> AbstractContextManager[Restoring]:
    """A backup unpacked; in place at the end of the block. `-`: from stdin."""
    from wrennd.host.administer import restoring

    return restoring(config, file)


def space(config: Config) -> Space:
    from wrennd.host.administer import space

    return space(config)


def prune(config: Config, *, is_dry_run: bool, with_templates: bool) -> Pruning:
    from wrennd.host.administer import prune

    return prune(config, is_dry_run=is_dry_run, with_templates=with_templates)


def doctor(config: Config) -> list[Check]:
    from wrennd.host.doctor import examine

    return examine(config)
