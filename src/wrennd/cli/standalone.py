"""The one door from the command to this machine, for as long as no server runs on it.

What it opens is imported when it is opened: `wrenn version` and `--help` need none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wrennd.core.config import Config
from wrennd.linux.process import Guard

if TYPE_CHECKING:
    from pathlib import Path

    from wrennd.core.sandboxes import Sandboxes
    from wrennd.host.doctor import Check

Report = Callable[[str], None]


@contextmanager
def sandboxes(config: Config, report: Report) -> Iterator[Sandboxes]:
    """Sandboxes that end with this process; a guard cleans up after it when it is killed."""
    from wrennd.host.local import LocalSandboxes
    from wrennd.host.reclaim import reclaim

    here = LocalSandboxes(config, report)

    def undo() -> None:
        reclaim(here.layout, here.network)

    guard = Guard(undo)
    try:
        yield here
    finally:
        guard.dismiss()


def setup(config: Config, *, force: bool, report: Report) -> None:
    from wrennd.host.local import require_root
    from wrennd.host.setup import setup
    from wrennd.storage.layout import Layout

    require_root()
    setup(Layout.prepare(config.data_dir), force=force, report=report)


def take_firecracker(config: Config, file: Path, report: Report) -> None:
    from wrennd.host import firecracker, setup
    from wrennd.host.local import probe_guest, require_root
    from wrennd.storage.images import ImageStore
    from wrennd.storage.layout import Layout

    require_root()
    layout = Layout.prepare(config.data_dir)
    firecracker.check_is_program(file)
    setup.ensure_kernel(layout, report)
    report(f"firecracker: booting a guest with {file}")
    taken = firecracker.take(file, layout, probe_guest(layout, ImageStore(layout).kernel()))
    report(f"firecracker: {taken} is used from now on")


def doctor(config: Config) -> list[Check]:
    from wrennd.host.doctor import examine

    return examine(config)


def images(config: Config) -> list[dict[str, Any]]:
    from wrennd.storage.images import ImageStore
    from wrennd.storage.layout import Layout

    return [image.to_json() for image in ImageStore(Layout.prepare(config.data_dir)).list()]
