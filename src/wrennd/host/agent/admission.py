"""Whether there is room for a VM more: memory and disk, given out and what is there.

What has a VM counts by its record, what is being made by its reservation, until its record says
the same. Everything that runs has the room that its pause would take set aside. From any thread.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wrennd.core.errors import NoCapacity
from wrennd.host.agent.catalogue import Catalogue
from wrennd.host.capacity import VMM_OVERHEAD_MIB, available_mib, total_mib
from wrennd.host.record import Record
from wrennd.storage.layout import Layout
from wrennd.storage.usage import disk_usage

MIB = 1 << 20
# Never given out: records, logs, and the blocks that files need besides their content.
FLOOR_BYTES = 256 * MIB
# The driver whose snapshots share all blocks with their disk. Those of `dm` do where the filesystem
# can clone, which is not looked at: too much is set aside then.
SHARING = "reflink"


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a sandbox may come to use. mem_mib: its guest's and its VMM's; pause_bytes: what a pause
    writes; disk_bytes: what its making takes at once."""

    mem_mib: int
    pause_bytes: int
    disk_bytes: int = 0
    vcpus: int = 0


@dataclass(frozen=True, kw_only=True)
class Used:
    """What there is and what is given out; of disks, bytes."""

    mem_mib: int
    mem_mib_reserved: int
    disk_bytes: int
    disk_bytes_free: int
    disk_bytes_reserved: int
    cpus: int
    vcpus_given: int


def room_for(mem_mib: int, vcpus: int, *, disk: Path | None, overlay: str) -> Room:
    """Of a sandbox with that much memory. disk: what is copied when it is made, and with each
    pause; None: nothing.

    A pause writes the pages that changed twice: once by the VMM, once as they are kept.
    """
    kept = disk_usage(disk) if disk is not None and overlay != SHARING else 0
    return Room(
        mem_mib=mem_mib + VMM_OVERHEAD_MIB,
        pause_bytes=2 * mem_mib * MIB + kept,
        disk_bytes=kept,
        vcpus=vcpus,
    )


class Admission:
    """The room of one host. mem_overcommit: how much of its memory may be given out, 1.0: all."""

    def __init__(self, layout: Layout, catalogue: Catalogue, mem_overcommit: float) -> None:
        self._layout = layout
        self._catalogue = catalogue
        self._mem_overcommit = mem_overcommit
        # Held while room is looked for and taken, so that two don't take the same.
        self._lock = threading.Lock()
        self._pending: dict[str, Room] = {}

    @contextmanager
    def reserved(self, sandbox_id: str, room: Room) -> Iterator[None]:
        """Have that room until the end of the block; by then the record speaks for it.

        Errors: NoCapacity, with figures.
        """
        with self._lock:
            self._check(sandbox_id, room)
            self._pending[sandbox_id] = room
        try:
            yield
        finally:
            with self._lock:
                del self._pending[sandbox_id]

    def check_disk(self, sandbox_id: str, wanted_bytes: int, what: str) -> None:
        """That so much can be written beside what is set aside. Errors: NoCapacity."""
        with self._lock:
            self._check_disk(self._taken(sandbox_id), wanted_bytes, what)

    def used(self) -> Used:
        with self._lock:
            taken = self._taken("")
        disk = shutil.disk_usage(self._layout.data_dir)
        return Used(
            mem_mib=round(total_mib() * self._mem_overcommit),
            mem_mib_reserved=sum(room.mem_mib for room in taken),
            disk_bytes=disk.total,
            disk_bytes_free=disk.free,
            disk_bytes_reserved=FLOOR_BYTES + sum(room.pause_bytes for room in taken),
            cpus=os.cpu_count() or 1,
            vcpus_given=sum(room.vcpus for room in taken),
        )

    def _taken(self, but: str) -> list[Room]:
        """Of everybody else."""
        rooms = {one.id: self._room_of(one) for one in self._catalogue.live()}
        rooms |= self._pending
        rooms.pop(but, None)
        return list(rooms.values())

    def _room_of(self, found: Record) -> Room:
        disk = self._layout.sandbox(found.id).disk
        return room_for(found.mem_mib, found.vcpus, disk=disk, overlay=found.overlay)

    def _check(self, sandbox_id: str, room: Room) -> None:
        taken = self._taken(sandbox_id)
        given = sum(one.mem_mib for one in taken)
        most = round(total_mib() * self._mem_overcommit)
        if given + room.mem_mib > most:
            raise NoCapacity(
                f"a sandbox that needs {room.mem_mib} MiB does not fit: {given} of {most} MiB "
                "are given out",
                hint="pause or destroy others, or choose less memory",
            )
        # What is being made has not taken all of its own yet.
        coming = sum(one.mem_mib for one in self._pending.values())
        there = available_mib(Path("/proc/meminfo").read_text())
        if coming + room.mem_mib > there:
            raise NoCapacity(
                f"a sandbox that needs {room.mem_mib} MiB does not fit: this host has {there} MiB "
                f"available, {coming} of them promised",
                hint="pause or destroy others, or choose less memory",
            )
        self._check_disk(taken, room.pause_bytes + room.disk_bytes, "a sandbox")

    def _check_disk(self, taken: list[Room], wanted: int, what: str) -> None:
        aside = FLOOR_BYTES + sum(one.pause_bytes for one in taken)
        free = shutil.disk_usage(self._layout.data_dir).free
        if aside + wanted > free:
            raise NoCapacity(
                f"{what} needs {wanted // MIB} MiB of {self._layout.data_dir}: {free // MIB} MiB "
                f"are free, {aside // MIB} of them kept for pauses of what runs",
                hint="remove sandboxes or snapshots: wrenn ls --all and wrenn snapshot ls",
            )
