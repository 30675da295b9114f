import os
import select
import socket
import time

import pytest

from wrennd.qemu_vmm.resources import RateLimiter, TokenBucket
from wrennd.qemu_vmm.shaper import Bucket, Direction, Limit, Shaper


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def bucket(size, refill_time=1000, burst=None):
    return TokenBucket(size=size, one_time_burst=burst, refill_time=refill_time)


def limiter(bandwidth=None, ops=None):
    return RateLimiter(bandwidth=bandwidth, ops=ops)


@pytest.fixture
def pairs():
    """Two pairs of sockets that keep whole frames, as a tap does; all four ends."""
    ends = [*socket.socketpair(type=socket.SOCK_DGRAM), *socket.socketpair(type=socket.SOCK_DGRAM)]
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def test_a_bucket_is_full_at_first_and_fills_at_its_rate():
    clock = Clock()
    tokens = Bucket(bucket(100), clock)
    assert tokens.delay_s(100) == 0
    tokens.take(100)
    assert tokens.delay_s(50) == 0.5
    clock.now = 0.5
    assert tokens.delay_s(50) == 0
    clock.now = 1000.0
    tokens.take(100)
    assert tokens.delay_s(1) == 0.01, "no more than the bucket holds"


def test_the_burst_comes_once():
    clock = Clock()
    tokens = Bucket(bucket(10, burst=30), clock)
    for _ in range(4):
        assert tokens.delay_s(10) == 0
        tokens.take(10)
    assert tokens.delay_s(10) == 1.0
    clock.now = 1000.0
    tokens.take(10)
    assert tokens.delay_s(10) == 1.0


def test_more_than_the_bucket_holds_is_paid_for_later():
    clock = Clock()
    tokens = Bucket(bucket(10), clock)
    assert tokens.delay_s(50) == 0
    tokens.take(50)
    assert tokens.delay_s(10) == 5.0


def test_only_the_buckets_that_are_named_begin_anew():
    limit = Limit(limiter(bandwidth=bucket(10), ops=bucket(1)))
    limit.take(10)
    assert limit.delay_s(10) > 0.9
    named = limiter(ops=bucket(5))
    limit.update(named, limiter(bandwidth=bucket(10), ops=bucket(5)))
    assert limit.delay_s(10) > 0.8
    limit.update(limiter(bandwidth=bucket(0)), limiter(ops=bucket(5)))
    assert limit.delay_s(10) == 0
    limit.update(None, None)
    for _ in range(5):
        limit.take(1)
    assert limit.delay_s(1) > 0.1


def test_a_frame_is_held_until_there_are_tokens(pairs):
    outside, source, sink, inside = pairs
    way = Direction(source.fileno(), sink.fileno(), limiter(ops=bucket(1, 100_000)))
    assert way.advance().fd == source.fileno()
    outside.send(b"first")
    outside.send(b"second")
    wait = way.advance()
    assert (wait.fd, wait.timeout_s > 90) == (-1, True)
    assert inside.recv(100) == b"first"
    with pytest.raises(BlockingIOError):
        inside.recv(100)
    way.limit.update(limiter(ops=bucket(0)), None)
    assert way.advance().fd == source.fileno()
    assert inside.recv(100) == b"second"


def test_a_sink_that_is_full_is_waited_for(pairs):
    outside, source, sink, inside = pairs
    way = Direction(source.fileno(), sink.fileno(), None)
    sent = 0
    while (wait := way.advance()).fd == source.fileno():
        outside.send(b"%d" % sent)
        sent += 1
    assert (wait.fd, wait.events) == (sink.fileno(), select.POLLOUT)
    assert inside.recv(100) == b"0"
    way.advance()
    got = [b"0"]
    while len(got) < sent:
        got.append(inside.recv(100))
        way.advance()
    assert got == [b"%d" % number for number in range(sent)], "nothing is lost"


def receive(end, timeout_s=10.0):
    assert select.select([end], [], [], timeout_s)[0], "nothing came"
    return end.recv(1 << 17)


def test_frames_go_both_ways_and_limits_change(pairs):
    wire, tap, ours, guest = pairs
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    shaper = Shaper(tap.fileno(), ours.fileno(), None, limiter(ops=bucket(1, 3_600_000)))
    try:
        wire.send(b"to the guest")
        assert receive(guest) == b"to the guest"
        guest.send(b"first")
        guest.send(b"second")
        assert receive(wire) == b"first"
        assert not select.select([wire], [], [], 0.05)[0]
        nothing = limiter(ops=bucket(0))
        shaper.update((None, None), (nothing, None))
        assert receive(wire) == b"second"
    finally:
        shaper.close()
        shaper.close()
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_rate_is_kept(pairs):
    wire, tap, ours, guest = pairs
    shaper = Shaper(tap.fileno(), ours.fileno(), limiter(bandwidth=bucket(10_000, 100)), None)
    began = time.monotonic()
    for _ in range(20):
        wire.setblocking(True)
        wire.send(bytes(1000))
        receive(guest)
    shaper.close()
    assert time.monotonic() - began > 0.09, "10 at once, and one every 10 ms"
