"""`wrenn setup --storage reflink`: a volume that disks can be cloned in, and what is there moved
into it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from wrennd.core.errors import AlreadyExists, WrongState
from wrennd.core.sizes import format_bytes
from wrennd.host import record, setup
from wrennd.linux import files
from wrennd.storage import drivers, volume
from wrennd.storage.layout import Layout

Report = Callable[[str], None]
_MOVED = ("images", "names", "warm")
_EMPTY = ("sandboxes", "templates")


def make_volume(layout: Layout, size_bytes: int | None, report: Report) -> None:
    """Make the volume, unless the data directory's own filesystem can clone.

    size_bytes: None for most of what is free. Errors: AlreadyExists when there is one; WrongState
    while there are sandboxes or templates, which are not moved; NoCapacity, HostUnsuitable.
    """
    if layout.has_volume:
        raise AlreadyExists(f"there is a volume in {layout.data_dir} already")
    if drivers.can_clone(layout.sandboxes):
        report(f"storage: the filesystem of {layout.data_dir} can clone files: nothing to do")
        return
    size = size_bytes or volume.default_bytes(layout.data_dir)
    # Who makes a sandbox or an image holds one of these, and waits.
    with setup.alone(layout, report), record.installation_lock(layout):
        _check_is_empty(layout)
        report(f"storage: making a volume of {format_bytes(size)}")
        with volume.made(layout.data_dir, size) as mounted:
            for name in _EMPTY:
                (mounted / name).mkdir(mode=0o700)
            for name in _MOVED:
                _copy_tree(layout.data_dir / name, mounted / name)
        for name in (*_MOVED, *_EMPTY):
            shutil.rmtree(layout.data_dir / name)
    report(f"storage: disks are cloned in {layout.data_dir / volume.MOUNT} from now on")


def _check_is_empty(layout: Layout) -> None:
    there = [path for path in layout.sandboxes.iterdir() if path.is_dir()]
    there += [path for path in layout.templates.iterdir() if path.is_dir()]
    if there:
        raise WrongState(
            f"there are {len(there)} sandboxes or templates, which would have to be moved",
            hint="remove them first: wrenn ls --all, wrenn snapshot ls",
        )


def _copy_tree(source: Path, target: Path) -> None:
    """With holes, modes and times: those of images are part of what says that they are whole."""
    shutil.copytree(source, target, symlinks=True, copy_function=_copy_file)


def _copy_file(source: str, target: str) -> str:
    with Path(source).open("rb") as opened, Path(target).open("xb") as made:
        files.copy_sparse(opened.fileno(), made.fileno())
        found = os.fstat(opened.fileno())
    shutil.copymode(source, target)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
    return target
