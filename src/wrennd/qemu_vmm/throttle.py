"""Rate limits: Firecracker's token buckets as QEMU's leaky ones.

A bucket of `size` tokens that fills up within `refill_time` passes `size / refill_time`, and after
a pause `size` at once. QEMU keeps the same rate. Its burst is a tenth of a second's worth, or the
given one where that is a second's worth or more: what lies between, QEMU can't say. It comes
back whenever the bucket is full again, `one_time_burst` too.
"""

from wrennd.qemu_vmm.resources import RateLimiter, TokenBucket

MOST = 10**15  # a second: QEMU takes no more, and nothing reaches it
_PREFIXES = ("bps", "iops")


def limits(limiter: RateLimiter | None) -> dict[str, int]:
    """All of a throttle group's limits, 0 where there is none: they replace what was set."""
    buckets = (None, None) if limiter is None else (limiter.bandwidth, limiter.ops)
    found: dict[str, int] = {}
    for prefix, bucket in zip(_PREFIXES, buckets, strict=True):
        rate, burst = (0, 0) if bucket is None else _rate_and_burst(bucket)
        found[f"{prefix}-total"] = rate
        found[f"{prefix}-total-max"] = burst
        found[f"{prefix}-total-max-length"] = 1
    return found


def _rate_and_burst(bucket: TokenBucket) -> tuple[int, int]:
    if not bucket.is_limit:
        return 0, 0
    rate = min(bucket.per_second, MOST)
    burst = min(bucket.size + (bucket.one_time_burst or 0), MOST)
    return rate, burst if burst >= rate else 0


def updated(old: RateLimiter | None, new: RateLimiter | None) -> RateLimiter | None:
    """`old` after a PATCH with `new`: what is not named stays, a bucket of nothing is no limit."""
    if new is None:
        return old
    kept = old or RateLimiter(bandwidth=None, ops=None)
    return shown(
        RateLimiter(
            bandwidth=kept.bandwidth if new.bandwidth is None else new.bandwidth,
            ops=kept.ops if new.ops is None else new.ops,
        )
    )


def shown(limiter: RateLimiter | None) -> RateLimiter | None:
    """As `GET /vm/config` shows it: only buckets that limit, and None when none does."""
    if limiter is None or not limiter.is_limit:
        return None
    return RateLimiter(bandwidth=_shown(limiter.bandwidth), ops=_shown(limiter.ops))


def _shown(bucket: TokenBucket | None) -> TokenBucket | None:
    if bucket is None or not bucket.is_limit:
        return None
    return TokenBucket(
        size=bucket.size,
        one_time_burst=bucket.one_time_burst or None,
        refill_time=bucket.refill_time,
    )
