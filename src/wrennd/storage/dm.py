"""The driver `dm`: a disk is a device-mapper snapshot of its base, which all disks of it share.

In the sandbox's directory lie the disk's file (`storage/cow.py`) and a hard link to its base, so
that the base lives as long as anybody needs it, whatever becomes of its image. In the kernel there
is one device, `wrenn-<installation>-<id>`, whose table names the base's loop device and the disk's
(`storage/loops.py`). Nothing else is kept: by its name a device is found after any crash.

The table's first target is `snapshot`, for the length of the base; the second, if the disk is
longer, `linear`: what is behind the base is written in place.

Two writers on one disk's file would destroy it. There can't be two: the device's name is taken
by the first.
"""

import errno
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from wrennd.core.deadline import Deadline
from wrennd.core.errors import (
    DeadlineExceeded,
    DiskFailed,
    HostUnsuitable,
    ImageBroken,
    SnapshotBroken,
)
from wrennd.core.ids import SANDBOX_ID, check_sandbox_id
from wrennd.linux import devices, dm, files
from wrennd.linux.devices import BlockDevice
from wrennd.linux.dm import SECTOR, Control, Target
from wrennd.storage import cow
from wrennd.storage.base import base_of_cow, link_base
from wrennd.storage.cow import CHUNK, CowHeader
from wrennd.storage.loops import LoopRegistry
from wrennd.storage.overlay import (
    Given,
    Status,
    broken_as,
    finish_kept,
    length_of,
    new_file,
    opened_base,
    opened_disk,
    opened_kept,
    size_of,
    status_of,
)

log = logging.getLogger(__name__)
# After its VMM has ended a device is busy for as long as udev, or the kernel's own end of the
# process, has it open: milliseconds.
REMOVE_S = 10.0
_LOOK_S = 0.005
_USED = re.compile(r"[0-9]+/[0-9]+ [0-9]+")  # of a snapshot target that is well: used/all metadata
_NO_DM = frozenset({errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EPERM, errno.EACCES})
_DISCARDS_SINCE = (1, 16, 0)  # of the snapshot target: Linux 5.3


class DmDriver:
    """Disks of one installation. remove_s: how long a device that is in use is waited for."""

    name = "dm"

    def __init__(
        self, installation: str, loops: LoopRegistry, *, remove_s: float = REMOVE_S
    ) -> None:
        self._installation = installation
        self._loops = loops
        self._remove_s = remove_s

    def create(self, base: Path, disk: Path, *, uid: int, disk_mib: int = 0) -> Given:
        with opened_base(base) as source, broken_as(ImageBroken, base):
            return self._make_over(source, base, disk, disk_mib)

    def clone(self, kept: Path, disk: Path, *, uid: int, disk_mib: int = 0) -> Given:
        with opened_kept(kept) as source, broken_as(SnapshotBroken, kept):
            if not cow.is_cow(source):
                return self._make_over(source, kept, disk, disk_mib)
            length = length_of(disk_mib, size_of(source, kept))
            header = cow.read_header(source)
            with (
                self._linked(kept.parent / header.base_name, disk.parent / header.base_name),
                new_file(disk) as made,
            ):
                files.clone_or_copy(source, made)
                cow.grow(made, length)
                return self._attach(disk, made)

    def _make_over(self, source: int, base: Path, disk: Path, disk_mib: int) -> Given:
        """A disk that is as `base`, which `source` is, and holds nothing yet."""
        size = os.fstat(source).st_size
        tail = length_of(disk_mib, size) - size
        header = CowHeader(base_id=cow.base_id(source), base_bytes=size, tail_bytes=tail)
        with self._linked(base, disk.parent / header.base_name), new_file(disk) as made:
            cow.write_new(made, header)
            return self._attach(disk, made)

    def snapshot(self, disk: Path, target: Path, *, is_synced: bool = True) -> Path:
        with opened_disk(disk) as source, broken_as(SnapshotBroken, disk), self._at_rest(disk):
            header = cow.read_header(source)
            cow.check_valid(source)
            with (
                self._linked(disk.parent / header.base_name, target.parent / header.base_name),
                new_file(target) as made,
            ):
                files.clone_or_copy(source, made)
                finish_kept(made, is_synced=is_synced)
        return target

    def flatten(self, disk: Path, target: Path) -> Path:
        with (
            opened_disk(disk) as source,
            broken_as(SnapshotBroken, disk),
            self._at_rest(disk),
            new_file(target) as made,
        ):
            if cow.is_cow(source):
                with base_of_cow(source, disk.parent) as base:
                    cow.flatten(source, base, made)
            else:
                files.clone_or_copy(source, made)
            finish_kept(made)
        return target

    def reopen(self, disk: Path, *, uid: int) -> Given:
        with opened_kept(disk) as source, broken_as(SnapshotBroken, disk):
            if not cow.is_cow(source):
                raise SnapshotBroken(f"the disk {disk} is none of the driver dm")
            cow.check_valid(source)
        self.release(disk)
        fd = os.open(disk, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            with broken_as(SnapshotBroken, disk):
                return self._attach(disk, fd)
        finally:
            os.close(fd)

    def mend(self, disk: Path) -> None:
        mend(self._installation, disk.parent.name)

    def release(self, disk: Path) -> None:
        release(self._installation, disk.parent.name, within_s=self._remove_s)

    def remove(self, disk: Path) -> None:
        self.release(disk)
        disk.unlink(missing_ok=True)
        needed = {header.base_name for header in _headers(disk.parent)}
        for name in cow.base_names(disk.parent):
            if name not in needed:
                (disk.parent / name).unlink()

    def size(self, disk: Path) -> int:
        with opened_disk(disk) as fd:
            return size_of(fd, disk)

    def status(self, disk: Path) -> Status:
        with _control_if_any() as control:
            lost = "" if control is None else _why_lost(control, self._name(disk))
        return status_of(disk, self.size(disk), lost=lost)

    def _name(self, disk: Path) -> str:
        return device_name(self._installation, check_sandbox_id(disk.parent.name))

    def _attach(self, disk: Path, fd: int) -> BlockDevice:
        """Make the device of a disk whose file is open for writing. Errors: CowError, as `create`.

        The loop devices are held by this process until the device's table holds them.
        """
        header = cow.read_header(fd)
        name = self._name(disk)
        with ExitStack() as held:
            control = held.enter_context(_control())
            base = held.enter_context(base_of_cow(fd, disk.parent))
            # The lock comes with it: the shortest time if it is taken last.
            own = held.enter_context(self._loops.own(fd, offset=cow.HEADER_BYTES))
            shared = held.enter_context(self._loops.shared(base))
            with ExitStack() as undo:
                device = control.create(name, name.upper())
                undo.callback(_remove, control, name, self._remove_s)
                control.load(name, table(header, shared, own, _has_discards(control)))
                control.resume(name)
                undo.pop_all()
            return device

    @contextmanager
    def _at_rest(self, disk: Path) -> Iterator[None]:
        """All that was written to the disk is in its file, and nothing is written in the block.

        Errors: DiskFailed.
        """
        name = self._name(disk) if SANDBOX_ID.fullmatch(disk.parent.name) else ""
        with _control_if_any() as control:
            found = control.info(name) if control is not None and name else None
            if control is None or found is None or not found.has_table:
                yield  # nobody has it in use
                return
            _write_out(control, name, found.device)
            control.suspend(name)
            try:
                _check_is_well(control, name)
                yield
            finally:
                control.resume(name)

    @contextmanager
    def _linked(self, base: Path, link: Path) -> Iterator[None]:
        """A link to a base, which goes again when the block fails. Errors: CowError, OSError."""
        with ExitStack() as undo:
            try:
                if link_base(base, link):
                    undo.callback(link.unlink)
            except FileNotFoundError as error:
                raise cow.CowError(f"its base {base.name} is missing") from error
            yield
            undo.pop_all()


def table(
    header: CowHeader, base: BlockDevice, disk: BlockDevice, discards: bool
) -> tuple[Target, ...]:
    """A disk's table. discards: let the guest give back space (`discard_zeroes_cow`)."""
    sectors = header.base_bytes // SECTOR
    feature = " 1 discard_zeroes_cow" if discards else ""
    found = [
        Target(
            start=0,
            length=sectors,
            kind="snapshot",
            params=f"{base} {disk} P {CHUNK // SECTOR}{feature}",
        )
    ]
    if header.tail_bytes:
        found.append(
            Target(
                start=sectors,
                length=header.tail_bytes // SECTOR,
                kind="linear",
                params=f"{disk} {header.area_bytes // SECTOR}",
            )
        )
    return tuple(found)


def device_name(installation: str, sandbox_id: str) -> str:
    return f"wrenn-{installation}-{sandbox_id}"


def attached(installation: str) -> set[str]:
    """The ids of sandboxes that have a device."""
    with _control_if_any() as control:
        names = {} if control is None else control.names()
    prefix = device_name(installation, "")
    found = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return {name for name in found if SANDBOX_ID.fullmatch(name)}


def mend(installation: str, sandbox_id: str) -> None:
    """As `Driver.mend`, by the sandbox's id."""
    name = device_name(installation, sandbox_id)
    with _control_if_any() as control:
        found = None if control is None else control.info(name)
        if control is not None and found is not None and found.is_suspended:
            log.warning("I/O of a disk that was held back goes on", extra={"device": name})
            control.resume(name)


def release(installation: str, sandbox_id: str, *, within_s: float = REMOVE_S) -> None:
    """As `Driver.release`, by the sandbox's id. Errors: DeadlineExceeded while it is in use."""
    name = device_name(installation, sandbox_id)
    with _control_if_any() as control:
        if control is not None and control.info(name) is not None:
            _remove(control, name, within_s)


def check_usable() -> None:
    """Whether this host can make dm disks. Errors: HostUnsuitable says what is missing."""
    with _control() as control:
        try:
            control.target_version("snapshot")
        except OSError as error:
            raise HostUnsuitable(
                "device-mapper has no snapshots here",
                hint="load the module: modprobe dm_snapshot",
            ) from error


@contextmanager
def _control() -> Iterator[Control]:
    with ExitStack() as held:
        try:
            control = held.enter_context(dm.opened())
        except OSError as error:
            if error.errno not in _NO_DM:
                raise
            raise HostUnsuitable(
                f"device-mapper can't be used here: {os.strerror(error.errno)}",
                hint="load the module: modprobe dm_snapshot; or use another WRENN_OVERLAY",
            ) from error
        yield control


@contextmanager
def _control_if_any() -> Iterator[Control | None]:
    """To look for devices: without device-mapper there are none, and it is not loaded for that."""
    if not dm.is_there():
        yield None
        return
    with ExitStack() as held:
        control = None
        with suppress(HostUnsuitable):  # a container that sees the host's, but may not use it
            control = held.enter_context(_control())
        yield control


def _has_discards(control: Control) -> bool:
    return control.target_version("snapshot") >= _DISCARDS_SINCE


def _remove(control: Control, name: str, within_s: float) -> None:
    """Remove a device that may be busy for a moment; only that is waited for."""
    deadline = Deadline.after(within_s)
    while True:
        try:
            control.remove(name)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno != errno.EBUSY:
                raise
            if deadline.is_over:
                raise DeadlineExceeded(
                    f"the device {name} is still in use after {within_s:g} s",
                    hint="fuser -v /dev/dm-* may tell who has it open",
                ) from error
        else:
            return
        time.sleep(_LOOK_S)  # the end of others' use is nothing that can be waited for


def _write_out(control: Control, name: str, device: BlockDevice) -> None:
    """Bring what the VMM wrote from the page cache to the disk's file. Errors: DiskFailed."""
    try:
        with devices.opened(device, os.O_RDWR, name=f"dm-{device.minor}") as fd:
            os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EIO, errno.ENOSPC, errno.ENXIO):
            raise
        _check_is_well(control, name)
        raise DiskFailed(f"what was written to the disk {name} was lost: {error}") from error


def _check_is_well(control: Control, name: str) -> None:
    if why := _why_lost(control, name):
        raise DiskFailed(
            f"the disk {name} is lost: {why}",
            hint="its sandbox can only go back to its last snapshot",
        )


def _why_lost(control: Control, name: str) -> str:
    """Why the snapshot target gave up, "" when it has not, or there is no device."""
    try:
        targets = control.status(name)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return ""
        raise
    for target in targets:
        if target.kind == "snapshot" and not _USED.fullmatch(target.params):
            return (
                f"device-mapper calls it {target.params!r}: a write failed, most likely since "
                "the host's filesystem was full"
            )
    return ""


def _headers(directory: Path) -> Iterator[CowHeader]:
    """Of all dm disks in a directory."""
    for path in directory.iterdir():
        if path.is_symlink() or not path.is_file() or path.name.startswith(cow.BASE_PREFIX):
            continue
        with suppress(FileNotFoundError, cow.CowError), opened_disk(path) as fd:
            if cow.is_cow(fd):
                yield cow.read_header(fd)
