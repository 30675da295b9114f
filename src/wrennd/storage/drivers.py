"""Which driver makes a disk: the one that is wanted, or the best that works here, by trying.

`auto` is `dm`, then `reflink`, then `copy`. What a directory's filesystem can do is found by doing
it, what the kernel can do by asking it.
"""

import tempfile
from pathlib import Path

from wrennd.core.errors import HostUnsuitable
from wrennd.linux import files, loop
from wrennd.storage import cow, dm
from wrennd.storage.dm import DmDriver
from wrennd.storage.layout import Layout
from wrennd.storage.loops import LoopRegistry
from wrennd.storage.overlay import Driver, copy_driver, opened_disk, reflink_driver

NAMES = ("dm", "reflink", "copy")  # the best first


def named(layout: Layout, name: str) -> Driver:
    """The driver that a record names. Errors: HostUnsuitable for one that is not known here."""
    if name == "dm":
        label = dm.device_name(layout.installation, "").rstrip("-")
        return DmDriver(layout.installation, LoopRegistry(label, layout.loops_lock))
    if name == "reflink":
        return reflink_driver()
    if name == "copy":
        return copy_driver()
    raise HostUnsuitable(
        f"there is no disk driver {name!r} here", hint=f"known are {', '.join(NAMES)}"
    )


def of(layout: Layout, disk: Path, name: str) -> Driver:
    """The driver of a disk that is there, whatever was chosen since: its file says what it is.

    name: of which driver its sandbox's record speaks; it tells plain files' drivers apart.
    """
    if is_cow_disk(disk):
        return named(layout, "dm")
    return named(layout, "copy" if name in ("dm", "") else name)


def is_cow_disk(disk: Path) -> bool:
    """Whether a disk, or a kept one, is what differs from a base. False when there is none."""
    try:
        with opened_disk(disk) as fd:
            return cow.is_cow(fd)
    except FileNotFoundError:
        return False


def choose(layout: Layout, wanted: str) -> Driver:
    """The driver for new disks. Errors: as of `choose_name`."""
    return named(layout, choose_name(layout.sandboxes, wanted))


def choose_name(directory: Path, wanted: str) -> str:
    """Of the best driver for new disks in `directory`, or the wanted one if it works there.

    Errors: HostUnsuitable when the wanted one does not.
    """
    names = NAMES if wanted == "auto" else (wanted,)
    for name in names[:-1]:
        if not why_not(directory, name):
            return name
    if reason := why_not(directory, names[-1]):
        raise HostUnsuitable(
            f"the disk driver {wanted} can't be used: {reason}",
            hint="use WRENN_OVERLAY=auto; wrenn setup --storage reflink makes a filesystem for it",
        )
    return names[-1]


def why_not(directory: Path, name: str) -> str:
    """Why a driver can't be used for new disks in `directory`, as a clause; "" when it can."""
    try:
        if name == "dm":
            dm.check_usable()
            loop.check_control()
        elif name == "reflink" and not can_clone(directory):
            return f"the filesystem of {directory} can't clone files"
    except HostUnsuitable as error:
        return str(error)
    except OSError as error:
        return f"loop devices can't be used here: {error.strerror}"
    return ""


def can_clone(directory: Path) -> bool:
    """Whether FICLONE works there, tried on two files without names."""
    with (
        tempfile.TemporaryFile(dir=directory) as source,
        tempfile.TemporaryFile(dir=directory) as target,
    ):
        source.write(b"\0" * 4096)
        source.flush()
        try:
            files.clone(source.fileno(), target.fileno())
        except OSError as error:
            if error.errno in files.CANT_CLONE:
                return False
            raise
    return True
