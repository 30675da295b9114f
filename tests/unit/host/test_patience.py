"""How much longer than its limit a guest is waited for."""

import time

import pytest

from wrennd.core.errors import DeadlineExceeded
from wrennd.host.patience import LONGEST_S, patiently


class Asked:
    """Answers once a deadline is far enough from now."""

    def __init__(self, needs_s):
        self.needs_s = needs_s
        self.began = time.monotonic()
        self.limits = []

    def __call__(self, deadline):
        self.limits.append(round(deadline.at - self.began))
        if self.limits[-1] < self.needs_s:
            raise DeadlineExceeded("no answer")
        return "ready"


def test_in_time():
    ask = Asked(90)
    assert patiently(ask, 90, lambda: 1000.0) == "ready"
    assert ask.limits == [90]


def test_what_its_vmm_waited_is_added_as_often_as_it_waits():
    ask, waited = Asked(150), iter([20.0, 45.0, 70.0])
    assert patiently(ask, 90, lambda: next(waited)) == "ready"
    assert ask.limits == [90, 110, 135, 160]


@pytest.mark.parametrize("waited", [0.0, 0.5])
def test_a_guest_that_had_its_cpu_is_given_up(waited):
    ask = Asked(1000)
    with pytest.raises(DeadlineExceeded):
        patiently(ask, 90, lambda: waited)
    assert ask.limits == [90]


def test_there_is_an_end():
    ask = Asked(2 * LONGEST_S)
    with pytest.raises(DeadlineExceeded):
        patiently(ask, 90, lambda: 1e6)
    assert ask.limits == [90, LONGEST_S]
