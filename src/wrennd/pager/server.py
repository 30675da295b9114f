"""The worker: answers one VM's page faults until the VM is gone. One thread, one loop.

`Server.serve` returns when the VMM has ended, and raises Fatal when a page can't be had or the
VMM breaks the rules: whoever called it kills the VMM then, and only then ends.
"""

import os
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass

from wrennd.pager.abi import (
    EVENT_PAGEFAULT,
    EVENT_REMOVE,
    MESSAGE,
    PAGE_SHIFT,
    PAGEFAULT_FLAG_WRITE,
    UFFDIO_COPY_MODE_DONTWAKE,
    UFFDIO_COPY_MODE_WP,
    UFFDIO_ZEROPAGE_MODE_DONTWAKE,
)
from wrennd.pager.board import (
    ABSENT,
    ANSWERED,
    DEFERRED,
    DEFERRED_SINCE,
    INSTALLED,
    PREFETCHED,
    READ,
    REMOVALS,
    REMOVED,
    TOUCHED,
    Board,
)
from wrennd.pager.handshake import Handshake
from wrennd.pager.image import Image
from wrennd.pager.uffd import Busy, Fatal, Gone, Uffd

WINDOW_PAGES = 64  # 256 KiB: larger ones copy no faster, and the next fault waits longer for them
MESSAGES = 64  # read at once
RETRY_MS = 1  # while a removal is under way; its thread must get to run

_messages = MESSAGE.iter_unpack
_ABSENT, _REMOVED = bytes([ABSENT]), bytes([REMOVED])
_INSTALLED = bytes([INSTALLED]) * WINDOW_PAGES


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is served, through which userfaultfd, and where it is noted.

    window: how many pages come along with a faulted one at most; 1 for none.
    """

    uffd: int
    handshake: Handshake
    image: Image
    board: Board
    window: int = WINDOW_PAGES


class Server:
    """Does a job. wanted: for each page whether to prefetch it; may be empty."""

    def __init__(self, job: Job, wanted: bytes = b"") -> None:
        self._uffd = job.uffd
        self._memory = Uffd(job.uffd)
        self._copy = self._memory.copy
        # (address, end, shift, first page, page behind the last)
        self._regions = tuple(
            (r.address, r.end, r.shift, r.first, r.first + r.pages) for r in job.handshake.regions
        )
        self._table = job.image.table
        self._addresses = job.image.addresses
        self._state = job.board.state
        self._counters = job.board.counters
        self._wp = job.handshake.wp_async
        self._copy_mode = UFFDIO_COPY_MODE_WP if self._wp else 0
        self._window = min(job.window, WINDOW_PAGES)
        self._wanted = wanted
        self._next_wanted = wanted.find(1)
        self._buffer = bytearray(MESSAGE.size * MESSAGES)
        self._messages = memoryview(self._buffer)
        self._zeros = job.image.zeros_address
        self._deferred: list[int] = []
        # How long to wait for events, in ms, before there is something else to do.
        self._patience: int | None = None if self._next_wanted < 0 else 0
        self._windows: list[tuple[int, int, int]] = []

    def take_over(self) -> None:
        """Have every thread that waits fault again: a worker before us may have read its fault.

        Errors: OSError when `uffd` is no userfaultfd in use.
        """
        for address, end, *_ in self._regions:
            self._memory.wake(address, end - address)
        self._counters[ANSWERED] = self._counters[READ]
        self._counters[DEFERRED] = self._counters[DEFERRED_SINCE] = 0

    def serve(self, vmm: Sequence[int]) -> None:
        """Answer faults until one of the processes of the pidfds `vmm` has ended. Errors: Fatal."""
        poll = select.poll()
        poll.register(self._uffd, select.POLLIN)
        for pidfd in vmm:
            poll.register(pidfd, select.POLLIN)
        expected = [(self._uffd, select.POLLIN)]
        try:
            while True:
                events = poll.poll(self._patience)
                if events == expected:
                    self._answer(self._read())
                    if self._windows:
                        self._fill_windows()
                elif not events:
                    self._idle()
                elif events[0] == (self._uffd, select.POLLERR):
                    raise Fatal("the userfaultfd can't be polled")
                else:
                    return
        except Gone:
            return

    def _idle(self) -> None:
        """No event came for as long as `_patience` says; there may be something else to do."""
        self._patience = None if self._next_wanted < 0 else 0
        if self._deferred:
            self._answer([])
            self._fill_windows()
        elif self._next_wanted >= 0:
            self._prefetch()

    # Events

    def _read(self) -> list[int]:
        """Read events, apply removals; the addresses of the faults."""
        try:
            count = os.readv(self._uffd, (self._buffer,))
        except BlockingIOError:
            return []
        faults = []
        for event, one, other, _ in _messages(self._messages[:count]):
            # The event is the lowest byte; with no other bit set it is a fault.
            if event == EVENT_PAGEFAULT and one <= PAGEFAULT_FLAG_WRITE:
                faults.append(other)
            elif event & 0xFF == EVENT_REMOVE:
                self._remove(one, other)
            else:
                raise Fatal(f"event {event & 0xFF:#x} with flags {one:#x} was not asked for")
        self._counters[READ] += len(faults)
        return faults

    def _remove(self, start: int, end: int) -> None:
        """These pages read as zeros from now on."""
        self._counters[REMOVALS] += 1
        for address, region_end, shift, *_ in self._regions:
            low = max(start, address) - shift >> PAGE_SHIFT
            high = min(end, region_end) - shift >> PAGE_SHIFT
            if low < high:
                self._state[low:high] = _REMOVED * (high - low)

    # Faults

    def _answer(self, faults: list[int]) -> None:
        """Answer those put off, then `faults`: each page by itself, its window later."""
        put_off = self._deferred
        if put_off:
            faults = put_off + faults
            self._deferred = []
        done = 0
        try:
            for address in faults:
                self._fault(address)
                done += 1
        except Busy:
            self._put_off(faults[done:])
        else:
            if put_off:
                self._counters[DEFERRED] = self._counters[DEFERRED_SINCE] = 0
        self._counters[ANSWERED] += done

    def _put_off(self, faults: list[int]) -> None:
        self._patience = RETRY_MS
        self._deferred = faults
        self._counters[DEFERRED] = len(faults)
        if not self._counters[DEFERRED_SINCE]:
            self._counters[DEFERRED_SINCE] = time.monotonic_ns()

    def _fault(self, address: int) -> None:
        """Install the page, waking who waits for it; note its window."""
        start, end, shift, first, last = self._regions[0]
        if not start <= address < end:
            shift, first, last = self._region(address)
        page = address - shift >> PAGE_SHIFT
        at = (page << PAGE_SHIFT) + shift
        state = self._state[page]
        if state == ABSENT:
            # As `_put`, spelled out: this is what a guest waits for.
            source = self._table[page]
            try:
                if source:
                    place = self._addresses[source] + (page << PAGE_SHIFT)
                    self._copy(at, place, 1, self._copy_mode)
                else:
                    self._memory.zero(at, 1, 0)
            except FileExistsError:
                self._memory.wake(at)
            self._state[page] = TOUCHED
            if self._window > 1:
                low = page - page % self._window
                self._windows.append((max(low, first), min(low + self._window, last), shift))
        elif state == REMOVED:
            self._put_zeros_back(page, at)
        else:
            self._check_is_there(page, at)

    def _region(self, address: int) -> tuple[int, int, int]:
        """Its shift, first page, and the page behind its last."""
        for start, end, shift, first, last in self._regions:
            if start <= address < end:
                return shift, first, last
        raise Fatal(f"a fault at {address:#x}, where the guest has no memory")

    def _check_is_there(self, page: int, at: int) -> None:
        """A fault on an installed page: of two vCPUs at once, mostly. Never install it again."""
        source = self._table[page]
        try:
            if source:
                place = self._addresses[source] + (page << PAGE_SHIFT)
                mode = UFFDIO_COPY_MODE_DONTWAKE | self._copy_mode
                self._copy(at, place, 1, mode)
            else:
                self._memory.zero(at, 1, UFFDIO_ZEROPAGE_MODE_DONTWAKE)
        except FileExistsError:
            self._memory.wake(at)
        else:
            raise Fatal(f"page {page} was installed, and is gone without notice")

    def _put_zeros_back(self, page: int, at: int) -> None:
        """A page that was removed. Where writes are tracked by protection, and the snapshot holds
        something there, the zeros must count as written: the next snapshot inherits else."""
        try:
            if self._wp and self._table[page]:
                self._copy(at, self._zeros, 1, 0)
            else:
                self._memory.zero(at, 1, 0)
        except FileExistsError:
            self._memory.wake(at)

    # Filling

    def _fill_windows(self) -> None:
        """At once: a guest that goes on to the next page would else fault on each of them."""
        windows, self._windows = self._windows, []
        try:
            for low, high, shift in windows:
                self._fill(low, high, shift)
        except Busy:
            self._patience = RETRY_MS

    def _prefetch(self) -> None:
        """Install the next recorded pages, a window's worth at most, of one region."""
        low = self._wanted.find(1, self._next_wanted)
        if low < 0:
            self._next_wanted, self._patience = -1, None
            self._wanted = b""
            return
        high = self._wanted.find(0, low, low + WINDOW_PAGES)
        if high < 0:
            high = min(low + WINDOW_PAGES, len(self._wanted))
        _, _, shift, _, last = next(region for region in self._regions if low < region[4])
        high = min(high, last)
        try:
            self._fill(low, high, shift)
        except Busy:
            self._patience = RETRY_MS
        else:
            self._counters[PREFETCHED] += high - low
            self._next_wanted = high

    def _fill(self, low: int, high: int, shift: int) -> None:
        """Install what is absent of [low, high), in one region. Errors: Busy, and part is done."""
        state, table = self._state, self._table
        while (low := state.find(_ABSENT, low, high)) >= 0:
            # So many pages are absent, and so many of those have the source of the first.
            states = state[low:high]
            sources = table[low : low + len(states) - len(states.lstrip(_ABSENT))]
            count = len(sources) - len(sources.lstrip(sources[:1]))
            try:
                done = self._put(low, count, (low << PAGE_SHIFT) + shift)
            except FileExistsError:
                done = 1
            state[low : low + done] = _INSTALLED[:done]
            low += done

    def _put(self, page: int, count: int, at: int) -> int:
        """Install pages of one source at the address `at`; how many, from the first on.

        At least one. Errors: FileExistsError when the first is there; Busy, Gone, Fatal.
        """
        source = self._table[page]
        if not source:
            return self._memory.zero(at, count, 0)
        place = self._addresses[source] + (page << PAGE_SHIFT)
        return self._copy(at, place, count, self._copy_mode)
