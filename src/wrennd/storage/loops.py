"""Loop devices of disks: one, read-only, for each base that is in use; one for each dm disk.

How many disks use a base is counted by the kernel, and nowhere else: a device-mapper device holds
the loop devices of its table, and shows among their holders. So the counts are right after any
crash, and need no rebuilding; `LoopRegistry.users` reads them. When the last user goes, the device
goes, by AUTOCLEAR.

A device is found by its file's device and inode: names may change. It may go between being found
and being opened; once it is open it stays, so it is looked at again then.

Lock: the registry's lock file is held from looking for a base's device until something is made of
it, so that there is one device for a base, whoever makes disks at the same time. No other lock is
taken while it is held.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wrennd.core.errors import HostUnsuitable, NoCapacity
from wrennd.linux import files, loop
from wrennd.linux.devices import BlockDevice
from wrennd.linux.loop import LoopStatus

_USED_UP = frozenset({errno.ENOSPC, errno.EBUSY, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_NONE_HERE = frozenset({errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EPERM, errno.EACCES})


class LoopKernel(Protocol):
    """What of `linux/loop.py` is used; it is one."""

    def attach(
        self, file: int, *, read_only: bool, offset: int = 0, size_limit: int = 0, name: str = ""
    ) -> tuple[int, BlockDevice]: ...

    def open_loop(self, number: int, *, read_only: bool = True) -> int: ...

    def status(self, fd: int) -> LoopStatus: ...

    def numbers(self, *, read_only: bool | None = None) -> Iterable[int]: ...

    def holders(self, number: int) -> frozenset[str]: ...


@dataclass(frozen=True, kw_only=True)
class SharedLoop:
    """The device of a base. users: names of the block devices that are made of it."""

    device: BlockDevice
    dev: int
    inode: int
    users: frozenset[str]


class LoopRegistry:
    """The loop devices of one installation. Holds nothing; safe to use from several processes.

    label: stands on every device, to tell whose it is. lock: a file for the registry alone.
    """

    def __init__(self, label: str, lock: Path, kernel: LoopKernel = loop) -> None:
        self._label = label
        self._lock = lock
        self._kernel = kernel

    @contextmanager
    def shared(self, base: int) -> Iterator[BlockDevice]:
        """The device of an open base, the one that there is or a new one. It is there in the block,
        and from then on as long as what was made of it. Errors: NoCapacity, HostUnsuitable."""
        with files.locked(self._lock), ExitStack() as held:
            found = self._find(os.fstat(base))
            if found is None:
                found = self._attach(base, read_only=True)
            held.callback(os.close, found[0])
            yield found[1]

    @contextmanager
    def own(self, disk: int, *, offset: int) -> Iterator[BlockDevice]:
        """A new device on the open file of a disk, from `offset` on; as `shared`."""
        fd, device = self._attach(disk, read_only=False, offset=offset)
        try:
            yield device
        finally:
            os.close(fd)

    def users(self) -> tuple[SharedLoop, ...]:
        """Every base that is in use, and by whom."""
        found = []
        for fd, there in self._ours():
            os.close(fd)
            users = self._kernel.holders(there.number)
            found.append(
                SharedLoop(device=there.device, dev=there.dev, inode=there.inode, users=users)
            )
        return tuple(found)

    def _find(self, base: os.stat_result) -> tuple[int, BlockDevice] | None:
        """A device that is this very file, held open."""
        for fd, there in self._ours():
            if (there.dev, there.inode) == (base.st_dev, base.st_ino):
                return fd, there.device
            os.close(fd)
        return None

    def _ours(self) -> Iterator[tuple[int, LoopStatus]]:
        """Bases' devices of this installation, each open: the caller closes it."""
        for number in self._kernel.numbers(read_only=True):
            try:
                fd = self._kernel.open_loop(number)
            except OSError as error:
                if error.errno not in _NONE_HERE | {errno.EBUSY}:
                    raise
                continue  # it went away, or is not ours to open
            try:
                there = self._kernel.status(fd)
            except OSError as error:
                os.close(fd)
                if error.errno != errno.ENXIO:
                    raise
                continue
            if self._is_base(there):
                yield fd, there
            else:
                os.close(fd)

    def _is_base(self, there: LoopStatus) -> bool:
        is_whole = there.offset == 0 and there.size_limit == 0
        is_made_so = there.is_read_only and there.is_autoclear
        return is_whole and is_made_so and there.name == self._label

    def _attach(self, file: int, *, read_only: bool, offset: int = 0) -> tuple[int, BlockDevice]:
        try:
            return self._kernel.attach(file, read_only=read_only, offset=offset, name=self._label)
        except OSError as error:
            if error.errno in _USED_UP:
                raise NoCapacity(
                    f"this host has no loop device left: {os.strerror(error.errno)}",
                    hint="losetup -a lists who uses them; each sandbox on a dm disk needs one",
                ) from error
            if error.errno in _NONE_HERE:
                raise HostUnsuitable(
                    f"loop devices can't be used here: {os.strerror(error.errno)}",
                    hint="load the module: modprobe loop; or use WRENN_OVERLAY=copy",
                ) from error
            raise
