"""Rate limits of network interfaces: frames go through here, since QEMU has none for a tap.

A limited interface is no tap for QEMU but a socket; a thread of its own carries frames between
that and the tap, each way behind token buckets as Firecracker has them. One frame is held until
there are tokens for it. Nothing is dropped: what the guest sends waits in the guest, what is sent
to it waits in the tap.

*Concurrency.* The thread owns the frames; buckets are exchanged under a lock, and a byte in the
pipe wakes the thread. `close` ends it. Descriptors are the caller's, and must outlive it.
"""

import math
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from wrennd.qemu_vmm.resources import RateLimiter, TokenBucket

MAX_FRAME = 1 << 17  # more than a frame can be
_AT_ONCE = 64  # frames, before the other direction has its turn


class Bucket:
    """Tokens of one limit. Begins full; `one_time_burst` is used up first, and gone then."""

    def __init__(self, config: TokenBucket, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._size = config.size
        self._rate = config.size * 1000 / config.refill_time
        self._burst = config.one_time_burst or 0
        self._tokens = float(config.size)
        self._filled_at = clock()

    def delay_s(self, wanted: int) -> float:
        """Until `wanted` tokens are there; more than the bucket holds are there when it is full."""
        self._fill()
        missing = min(wanted, self._size) - self._burst - self._tokens
        return max(0.0, missing / self._rate)

    def take(self, wanted: int) -> None:
        """Also tokens that are not there yet: the next ones wait for them."""
        self._fill()
        from_burst = min(self._burst, wanted)
        self._burst -= from_burst
        self._tokens -= wanted - from_burst

    def _fill(self) -> None:
        now = self._clock()
        filled = self._tokens + (now - self._filled_at) * self._rate
        self._tokens, self._filled_at = min(filled, float(self._size)), now


class Limit:
    """Both buckets of a direction, each of them or none."""

    def __init__(self, limiter: RateLimiter | None) -> None:
        self._bandwidth: Bucket | None = None
        self._ops: Bucket | None = None
        self.update(limiter, limiter)

    def update(self, named: RateLimiter | None, now: RateLimiter | None) -> None:
        """Buckets that `named` names begin anew, as `now` has them; the others go on."""
        if named is not None and named.bandwidth is not None:
            self._bandwidth = _bucket(now.bandwidth if now else None)
        if named is not None and named.ops is not None:
            self._ops = _bucket(now.ops if now else None)

    def delay_s(self, size: int) -> float:
        bandwidth = self._bandwidth.delay_s(size) if self._bandwidth else 0.0
        return max(bandwidth, self._ops.delay_s(1) if self._ops else 0.0)

    def take(self, size: int) -> None:
        if self._bandwidth is not None:
            self._bandwidth.take(size)
        if self._ops is not None:
            self._ops.take(1)


def _bucket(config: TokenBucket | None) -> Bucket | None:
    return Bucket(config) if config is not None and config.is_limit else None


@dataclass(frozen=True)
class Wait:
    """What a direction waits for: an event of a descriptor (-1: none), at most so many seconds."""

    fd: int
    events: int
    timeout_s: float | None


class Direction:
    """One way: `source` to `sink`, both of which give and take whole frames and never block."""

    def __init__(self, source: int, sink: int, limiter: RateLimiter | None) -> None:
        self._source, self._sink = source, sink
        self._held = b""
        self.limit = Limit(limiter)

    def advance(self) -> Wait:
        """Carry frames until there is something to wait for."""
        for _ in range(_AT_ONCE):
            if not self._held and not self._read():
                return Wait(self._source, select.POLLIN, None)
            if delay_s := self.limit.delay_s(len(self._held)):
                return Wait(-1, 0, delay_s)
            if not self._write():
                return Wait(self._sink, select.POLLOUT, None)
        return Wait(-1, 0, 0.0)

    def _read(self) -> bool:
        try:
            frame = os.read(self._source, MAX_FRAME)
        except BlockingIOError:
            return False
        self._held = frame
        return bool(frame)

    def _write(self) -> bool:
        """False when the sink is full. A frame that it does not take otherwise is lost."""
        frame, self._held = self._held, b""
        try:
            os.write(self._sink, frame)
        except BlockingIOError:
            self._held = frame
            return False
        except OSError:
            pass  # the interface is down, or the frame is none
        self.limit.take(len(frame))
        return True


class Shaper:
    """Carries the frames of one interface. `tap` is the host's side, `guest` QEMU's."""

    def __init__(
        self, tap: int, guest: int, rx: RateLimiter | None, tx: RateLimiter | None
    ) -> None:
        """rx, tx: as the guest sees it."""
        self._rx = Direction(tap, guest, rx)
        self._tx = Direction(guest, tap, tx)
        self._lock = threading.Lock()
        self._is_closing = False
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="shaper", daemon=True)
        self._thread.start()

    def update(
        self,
        rx: tuple[RateLimiter | None, RateLimiter | None],
        tx: tuple[RateLimiter | None, RateLimiter | None],
    ) -> None:
        """Each direction: what a PATCH named, and what holds now."""
        with self._lock:
            self._rx.limit.update(*rx)
            self._tx.limit.update(*tx)
        os.write(self._wake, b".")

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._is_closing:
                    return
                try:
                    waits = [self._rx.advance(), self._tx.advance()]
                except OSError:
                    return  # the tap is gone, and with it the network
            self._wait(waits)

    def _wait(self, waits: list[Wait]) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        for fd in {wait.fd for wait in waits if wait.fd >= 0}:
            events = 0
            for wait in waits:
                events |= wait.events if wait.fd == fd else 0
            poll.register(fd, events)
        timeouts = [wait.timeout_s for wait in waits if wait.timeout_s is not None]
        # Rounded up: poll counts milliseconds, and would spin through the last one.
        ready = poll.poll(math.ceil(min(timeouts) * 1000) if timeouts else None)
        if any(fd == self._woken for fd, _ in ready):
            os.read(self._woken, 4096)

    def close(self) -> None:
        """Ends the thread. May be called twice."""
        if self._wake < 0:
            return
        with self._lock:
            self._is_closing = True
        os.write(self._wake, b".")
        self._thread.join()
        os.close(self._wake)
        os.close(self._woken)
        self._woken = self._wake = -1
