"""`/snapshot/create`: the state of a paused guest's devices, then its memory, into two files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from wrennd.qemu_vmm import memory_file, migration, qemu, state_file
from wrennd.qemu_vmm.configuration import Configuration
from wrennd.qemu_vmm.faults import Fault, Prefix, os_text
from wrennd.qemu_vmm.log import Log
from wrennd.qemu_vmm.machine import Accel
from wrennd.qemu_vmm.phases import Phase
from wrennd.qemu_vmm.qemu import Qemu
from wrennd.qemu_vmm.snapshot_requests import SnapshotCreate, SnapshotType
from wrennd.qemu_vmm.state_file import Description


class Saver:
    """Makes the snapshots of one QEMU, any number in one pause. Owns nothing."""

    def __init__(self, guest: Qemu, accel: Accel, log: Log) -> None:
        self._qemu, self._accel, self._log = guest, accel, log
        # QEMU gives its state once in a pause; nothing changes it until the guest runs again.
        self._stream = b""
        self._is_stale = False

    def resumed(self) -> None:
        """The guest runs: what was saved of its devices is no longer so."""
        self._stream = b""
        self._is_stale = False

    def device_changed(self) -> None:
        """By a request: what was saved in this pause, if anything, is no longer so."""
        self._is_stale = bool(self._stream)

    def create(self, wanted: SnapshotCreate, configuration: Configuration, phase: Phase) -> None:
        """State first, then memory, both synced. Errors: Fault; the guest is as it was, and no
        dirty page is forgotten."""
        if phase is not Phase.PAUSED:
            raise Fault(
                f"{Prefix.CREATE_SNAPSHOT}Cannot save the microVM state: Operation not allowed: "
                "save/restore unavailable while running"
            )
        if self._is_stale:
            raise Fault(
                f"{Prefix.CREATE_SNAPSHOT}Cannot save the microVM state: Operation not allowed: "
                "a device was changed since the last snapshot of this pause, and QEMU tells its "
                "devices' state once in a pause: resume the microVM first"
            )
        self._sync_drives(configuration)
        if not self._stream:
            try:
                self._stream = migration.save(self._qemu)
            except qemu.FAILURES as error:
                raise Fault(
                    f"{Prefix.CREATE_SNAPSHOT}Cannot save the microVM state: {error}"
                ) from error
        description = Description(
            qemu=self._qemu.version,
            accel=self._accel,
            config=configuration.to_json(),
            macs=tuple(opened.mac for opened in configuration.interfaces),
        )
        _write_state(wanted.snapshot_path, state_file.encode(description, self._stream))
        is_diff = wanted.snapshot_type is SnapshotType.DIFF
        memory_file.save(wanted.mem_file_path, self._qemu.memory, is_diff=is_diff)

    def _sync_drives(self, configuration: Configuration) -> None:
        """QEMU has drained them when it stopped; like Firecracker's, a failure is only logged."""
        for opened in configuration.drives:
            if not opened.is_read_only:
                try:
                    os.fsync(opened.fd)
                except OSError as error:
                    self._log.error(f"drive {opened.drive.drive_id}: {os_text(error)}")


def _write_state(path: str, data: bytes) -> None:
    with _told("open"):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except ValueError:
            raise OSError("file name contained an unexpected NUL byte") from None
    try:
        with _told("write"):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        with _told("sync_all"):
            os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _told(step: str) -> Iterator[None]:
    """OSError becomes the fault that says so."""
    try:
        yield
    except OSError as error:
        raise Fault(
            f"{Prefix.CREATE_SNAPSHOT}Cannot perform {step} on the snapshot backing file: "
            f"{os_text(error)}"
        ) from error
