import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.qemu_vmm.resources import RateLimiter, TokenBucket
from wrennd.qemu_vmm.throttle import MOST, limits, shown, updated

U64 = st.integers(min_value=0, max_value=(1 << 64) - 1)
BUCKETS = st.builds(TokenBucket, size=U64, one_time_burst=st.none() | U64, refill_time=U64)
LIMITERS = st.builds(RateLimiter, bandwidth=st.none() | BUCKETS, ops=st.none() | BUCKETS)
NOTHING = {
    "bps-total": 0,
    "bps-total-max": 0,
    "bps-total-max-length": 1,
    "iops-total": 0,
    "iops-total-max": 0,
    "iops-total-max-length": 1,
}


def bucket(size, refill_time, burst=None):
    return TokenBucket(size=size, one_time_burst=burst, refill_time=refill_time)


@given(st.none() | LIMITERS)
def test_qemu_takes_all_limits(limiter):
    found = limits(limiter)
    assert set(found) == set(NOTHING)
    for prefix in ("bps", "iops"):
        rate, burst = found[f"{prefix}-total"], found[f"{prefix}-total-max"]
        assert burst == 0 or rate <= burst
        assert max(rate, burst) <= MOST


@pytest.mark.parametrize(
    ("given", "rate", "burst"),
    [
        (bucket(1000, 100), 10_000, 0),  # a tenth of a second is QEMU's own burst
        (bucket(1000, 100, 500), 10_000, 0),
        (bucket(1000, 1000), 1000, 1000),
        (bucket(1000, 5000), 200, 1000),
        (bucket(1000, 100, 50_000), 10_000, 51_000),
        (bucket(1, 10_000), 1, 1),
    ],
)
def test_rates_stay_and_bursts_as_far_as_qemu_has_them(given, rate, burst):
    found = limits(RateLimiter(bandwidth=given, ops=None))
    assert found == {**NOTHING, "bps-total": rate, "bps-total-max": burst}
    assert limits(RateLimiter(bandwidth=None, ops=given))["iops-total"] == rate


def test_no_limit():
    empty = RateLimiter(bandwidth=bucket(0, 1), ops=bucket(1, 0))
    forever = RateLimiter(bandwidth=bucket(1, 1 << 63), ops=None)
    for limiter in (None, empty, forever):
        assert limits(limiter) == NOTHING
        assert shown(limiter) is None


def test_a_patch_changes_what_it_names():
    old = RateLimiter(bandwidth=bucket(1, 1), ops=bucket(2, 2))
    ops = RateLimiter(bandwidth=None, ops=bucket(3, 3, 0))
    assert updated(old, None) is old
    assert updated(old, ops) == RateLimiter(bandwidth=bucket(1, 1), ops=bucket(3, 3))
    assert updated(None, ops) == RateLimiter(bandwidth=None, ops=bucket(3, 3))
    no_bandwidth = RateLimiter(bandwidth=bucket(0, 0), ops=None)
    assert updated(old, no_bandwidth) == RateLimiter(bandwidth=None, ops=bucket(2, 2))
    assert updated(RateLimiter(bandwidth=bucket(1, 1), ops=None), no_bandwidth) is None
