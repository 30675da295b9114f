"""Sandboxes on dm disks, or in a volume, are stopped before the filesystem below them is full.

There a write that finds no room costs more than one block: device-mapper gives the whole disk up,
and the volume's XFS (`storage/volume.py`), which lies in a sparse file, all disks that are in it.
So a sandbox is stopped while there is room left for what its disk still has in memory; the disk is
whole then. A plain file elsewhere needs none of this: its guest gets an error.

`recovery.settle` looks at each running sandbox with every command; `wrenn run` all the time.
"""

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wrennd.core.errors import DiskFailed, NoCapacity, SnapshotBroken
from wrennd.core.sizes import format_bytes
from wrennd.host.machine import Machine
from wrennd.storage import drivers, volume
from wrennd.storage.layout import Layout
from wrennd.storage.overlay import Status

RESERVE_BYTES = 64 << 20
LOOK_S = 1.0


def trouble(status: Status, unwritten_bytes: int) -> str:
    """Why a sandbox must not go on writing to a dm disk, as a clause; "" when it may.

    unwritten_bytes: what the host has in memory and must still find room for.
    """
    if status.lost:
        return f"its disk is lost: {status.lost}"
    return too_full(status.free_bytes, unwritten_bytes)


def too_full(free_bytes: int, unwritten_bytes: int) -> str:
    """As `trouble`, by what is free on the filesystem below."""
    if free_bytes >= RESERVE_BYTES + unwritten_bytes:
        return ""
    return (
        f"the filesystem below its disk is almost full: {format_bytes(free_bytes)} are "
        f"free, and {format_bytes(unwritten_bytes)} not yet written"
    )


def trouble_of(layout: Layout, disk: Path) -> str:
    """As `trouble`, of a sandbox's disk now; "" of one that can't lose more than a block."""
    unwritten = unwritten_bytes(Path("/proc/meminfo").read_text())
    if layout.has_volume and (why := too_full(volume.free_below(layout.data_dir), unwritten)):
        return why
    if not drivers.is_cow_disk(disk):
        return ""
    try:
        status = drivers.named(layout, "dm").status(disk)
    except (FileNotFoundError, SnapshotBroken):
        return ""  # it went away, or is being made
    return trouble(status, unwritten)


def check_volume(layout: Layout, more_bytes: int = 0) -> None:
    """Before a sandbox is started, or `more_bytes` are written into a volume.

    Errors: NoCapacity when the filesystem below could get too full of it. Nothing without a volume.
    """
    if not layout.has_volume:
        return
    free = volume.free_below(layout.data_dir)
    if free < RESERVE_BYTES + more_bytes:
        raise NoCapacity(
            f"the filesystem below {layout.store} has {format_bytes(free)} free, and "
            f"{format_bytes(RESERVE_BYTES + more_bytes)} may be needed",
            hint=f"free some space on the filesystem of {layout.data_dir}",
        )


def unwritten_bytes(meminfo: str) -> int:
    """Dirty and Writeback of /proc/meminfo: of all disks, so never less than of one."""
    found = re.findall(r"^(?:Dirty|Writeback):\s+(\d+) kB$", meminfo, re.MULTILINE)
    return sum(int(kib) << 10 for kib in found)


@contextmanager
def watched(layout: Layout, machine: Machine) -> Iterator[None]:
    """End the machine in the block when its disk comes into trouble; that then is the error.

    Errors: DiskFailed.
    """
    watch = DiskWatch(layout, machine)
    watch.start()
    try:
        yield
    finally:
        watch.stop()
        if watch.why:
            raise DiskFailed(f"the sandbox was stopped: {watch.why}", hint="free some space")


class DiskWatch:
    """A thread that looks once in a while; none for a disk that can't lose more than a block."""

    def __init__(self, layout: Layout, machine: Machine) -> None:
        self.why = ""
        self._layout = layout
        self._disk = machine.journal.paths.disk
        self._pidfd = machine.vm.pidfd
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="disk watch", daemon=True)

    def start(self) -> None:
        if self._layout.has_volume or drivers.is_cow_disk(self._disk):
            self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            why = trouble_of(self._layout, self._disk)
            if why:
                self.why = why
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                return
