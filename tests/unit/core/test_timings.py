import pytest

from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded
from wrennd.core.timings import Timings


def test_phases_are_kept_in_order_and_summed_by_name():
    timings = Timings()
    for name in ("network", "vmm", "network"):
        with timings.phase(name):
            pass
    assert list(timings.phases_ms) == ["network", "vmm"]
    assert sum(timings.phases_ms.values()) <= timings.total_ms + 0.2


def test_a_phase_that_raises_is_recorded():
    timings = Timings()
    with pytest.raises(ValueError, match="boom"), timings.phase("vmm"):
        raise ValueError("boom")
    assert "vmm" in timings.phases_ms


def test_a_deadline_that_is_over_says_what_took_too_long():
    late = Deadline.after(-1)
    assert late.remaining_s == 0
    with pytest.raises(DeadlineExceeded, match="the boot took too long"):
        late.check("the boot")
    Deadline.after(60).check("nothing")
