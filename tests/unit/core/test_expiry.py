"""When a sandbox is due."""

import pytest

from wrennd.core.errors import InvalidInput
from wrennd.core.expiry import MAX_SECONDS, NEVER, After, Expiry


def test_never_is_never():
    assert NEVER.moment_ms(set_ms=1, active_ms=1) is None


def test_idle_counts_from_the_last_use():
    expiry = Expiry(after=After.IDLE, seconds=10)
    assert expiry.moment_ms(set_ms=0, active_ms=5000) == 15000
    assert expiry.moment_ms(set_ms=7000, active_ms=5000) == 17000


def test_a_deadline_is_not_put_off():
    expiry = Expiry(after=After.DEADLINE, seconds=10)
    assert expiry.moment_ms(set_ms=1000, active_ms=5000) == 11000


@pytest.mark.parametrize("seconds", [-1, MAX_SECONDS + 1])
def test_seconds_are_bounded(seconds):
    with pytest.raises(InvalidInput):
        Expiry(seconds=seconds)
