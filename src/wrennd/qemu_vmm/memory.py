"""The guest's memory: what it is made of, who serves it, which pages changed.

The RAM shim maps it in QEMU and makes the userfaultfd; everything else is done here, from outside:
the registration, Firecracker's handshake with the page-fault handler, the set of dirty pages.

QEMU maps RAM in one piece, so an offset in it is one in the memory file, also above 3 GiB, where
the guest's addresses have a hole and Firecracker has two regions.

*Dirty.* Exactly: a userfaultfd with write protection that resolves itself (WP_ASYNC) lets the
kernel remember which pages were written. Nothing is protected before the first reset: until then
the pages that the process has for itself are those that were written, since a page that the
handler installs is protected from the start if it heeds our key `wp_async`, and else counts as
written. Where the kernel can't (before Linux 6.7), or tracking is off, the dirty set is always all
pages that the process has for itself.
"""

import errno
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum

from wrennd.linux import pagemap, uffd
from wrennd.linux.foreign_memory import MAX_RANGES, Reader
from wrennd.linux.pagemap import PAGE, Wanted
from wrennd.qemu_vmm import ranges
from wrennd.qemu_vmm.ranges import Range

LOW_BYTES = 3 << 30  # below the hole, in Firecracker and in QEMU's microvm
CHUNK = 1 << 20  # read at once

_TRACKING = uffd.UFFD_FEATURE_WP_ASYNC | uffd.UFFD_FEATURE_WP_UNPOPULATED
# A page of the file that memory was restored from is clean until it was copied for us; so is the
# page of zeros that reading leaves where nothing was.
_DIRTY = Wanted(
    all_of=pagemap.PAGE_IS_WRITTEN,
    none_of=pagemap.PAGE_IS_FILE | pagemap.PAGE_IS_PFNZERO,
    any_of=pagemap.PAGE_IS_PRESENT | pagemap.PAGE_IS_SWAPPED,
)
_RESET = pagemap.PM_SCAN_WP_MATCHING | pagemap.PM_SCAN_CHECK_WPASYNC
_NO_FAULTS = -2  # the shim's FAULTS
_REPORT_BYTES = 16


class HandshakeFailed(OSError):
    """The page-fault handler could not be told about the memory."""


class Tracking(StrEnum):
    """How the pages of a Diff are found."""

    EXACT = "exact"
    POPULATED = "populated"


def best_tracking() -> Tracking:
    """The best that this kernel, and what this process may do, give."""
    with ExitStack() as held:
        try:
            device = _open_device()
            if device >= 0:
                held.callback(os.close, device)
            fd = uffd.create(device)
            held.callback(os.close, fd)
            uffd.enable(fd, _TRACKING)
        except OSError as error:
            # Not there, not allowed, or an older kernel.
            if error.errno in (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENXIO, errno.EINVAL):
                return Tracking.POPULATED
            raise
    return Tracking.EXACT


def _open_device() -> int:
    """-1 where there is none: the system call may do then."""
    try:
        return uffd.open_device()
    except FileNotFoundError:
        return -1


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the memory is made of; neither: zeros.

    file: the memory file, open for reading. handler: the connection to the page-fault handler,
    which stays open as long as the VMM runs, so that its end shows there.
    """

    file: int = -1
    handler: socket.socket | None = None

    @property
    def is_zeros(self) -> bool:
        return self.file < 0 and self.handler is None


class Plan:
    """What the RAM shim of a QEMU to be started is to do. Owns the sockets between the two."""

    def __init__(self, size: int, origin: Origin, tracking: Tracking) -> None:
        self.size, self.origin, self.tracking = size, origin, tracking
        self._faults = _NO_FAULTS
        if tracking is Tracking.EXACT or origin.handler is not None:
            self._faults = _open_device()
        self.shim, self._shim_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    @property
    def argument(self) -> str:
        """WRENN_RAM_SHIM, see `ram_shim.c`."""
        fds = (self._shim_end.fileno(), self.origin.file, self._faults)
        return f"{os.getpid()}:{self.size}:" + ":".join(map(str, fds))

    @property
    def inherited_fds(self) -> tuple[int, ...]:
        fds = (self._shim_end.fileno(), self.origin.file, self._faults)
        return tuple(fd for fd in fds if fd >= 0)

    def is_spawned(self) -> None:
        """QEMU has its copies: its end is to show on the socket."""
        self._shim_end.close()

    def attach(self, pid: int) -> "GuestMemory":
        """Read the shim's report, register the memory, let QEMU go on.

        Errors: OSError; this QEMU is of no use then.
        """
        data, fds, _, _ = socket.recv_fds(self.shim, _REPORT_BYTES, 1)
        address, size = (int.from_bytes(data[at : at + 8], "little") for at in (0, 8))
        if len(data) != _REPORT_BYTES or size != self.size:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the RAM shim did not report")
        memory = GuestMemory(pid, (address, address + size), self, fds[0] if fds else -1)
        try:
            memory.register()
            memory.introduce()
            self.shim.send(b"\0")
        except OSError:
            memory.close()
            raise
        return memory

    def close(self) -> None:
        """May be called twice."""
        self.shim.close()
        self._shim_end.close()
        if self._faults >= 0:
            os.close(self._faults)
        self._faults = _NO_FAULTS


class GuestMemory:
    """The memory of a QEMU process. Ranges are offsets in it, and in its memory file.

    Owns a copy of the userfaultfd and the pagemap; close it when QEMU has ended, not before.
    """

    def __init__(self, pid: int, where: Range, plan: Plan, faults: int) -> None:
        self.where, self.size = where, plan.size
        self.origin, self.tracking = plan.origin, plan.tracking
        self._left: list[Range] = []
        self._reader = Reader(pid, CHUNK)
        self._faults = faults
        self._pagemap = pagemap.open_pagemap(pid)

    def register(self) -> None:
        """Mappings of a file take write protection only, and only as WP_ASYNC (Linux 6.7)."""
        features = mode = 0
        if self.tracking is Tracking.EXACT:
            features |= _TRACKING
            mode |= uffd.UFFDIO_REGISTER_MODE_WP
        if self.origin.handler is not None:
            features |= uffd.UFFD_FEATURE_EVENT_REMOVE
            mode |= uffd.UFFDIO_REGISTER_MODE_MISSING
        if mode:
            uffd.enable(self._faults, features)
            uffd.register(self._faults, self.where[0], self.size, mode)

    def introduce(self) -> None:
        """Send Firecracker's one message to the page-fault handler, if there is one.

        Errors: HandshakeFailed.
        """
        if self.origin.handler is None:
            return
        data = json.dumps(self._mappings(), separators=(",", ":")).encode()
        try:
            sent = socket.send_fds(self.origin.handler, [data], [self._faults])
        except OSError as error:
            raise HandshakeFailed(*error.args) from error
        if sent != len(data):
            raise HandshakeFailed(errno.EMSGSIZE, "it took a part only")

    def _mappings(self) -> list[dict[str, object]]:
        """One for each region of Firecracker's. Handlers that don't know our key leave it."""
        extra = {"wp_async": True} if self.tracking is Tracking.EXACT else {}
        low = min(self.size, LOW_BYTES)
        return [
            {
                "base_host_virt_addr": self.where[0] + start,
                "size": end - start,
                "offset": start,
                "page_size": PAGE,
                "page_size_kib": PAGE,  # in bytes, as Firecracker's
                **extra,
            }
            for start, end in ((0, low), (low, self.size))
            if start < end
        ]

    def dirty(self) -> list[Range]:
        """What was written since the last `reset`, or since the start. Errors: OSError."""
        if self.tracking is Tracking.POPULATED:
            return self._own()
        found = pagemap.scan(self._pagemap, self.where, _DIRTY)
        return ranges.union(self._offsets(found), self._left)

    def reset(self, saved: Sequence[Range]) -> None:
        """Begin a new round: `saved`, what `dirty` had said, is on disk by now.

        What was written meanwhile, which nothing should do while the guest is paused, is dirty in
        the new round too. Errors: OSError.
        """
        if self.tracking is Tracking.EXACT:
            found = pagemap.scan(self._pagemap, self.where, _DIRTY, _RESET)
            self._left = ranges.without(self._offsets(found), saved)

    def not_zero(self) -> list[Range]:
        """Where something other than zeros may be; everywhere, unless it began with zeros."""
        return self._own() if self.origin.is_zeros else [(0, self.size)]

    def _own(self) -> list[Range]:
        return self._offsets(pagemap.own_pages(self._pagemap, self.where))

    def _offsets(self, found: Sequence[Range]) -> list[Range]:
        base = self.where[0]
        return [(start - base, end - base) for start, end in found]

    def read(self, wanted: Sequence[Range]) -> Iterator[tuple[list[Range], memoryview]]:
        """The bytes of `wanted`, piece by piece: which ones, and what they are until the next.

        Fetches what is missing from its handler, and waits for it as long as it takes.
        Errors: OSError.
        """
        base = self.where[0]
        for batch in ranges.batches(wanted, max_bytes=CHUNK, max_ranges=MAX_RANGES):
            yield batch, self._reader.read([(base + start, base + end) for start, end in batch])

    def close(self) -> None:
        """May be called twice."""
        for fd in (self._pagemap, self._faults):
            if fd >= 0:
                os.close(fd)
        self._pagemap = self._faults = -1
        if self.origin.handler is not None:
            self.origin.handler.close()
