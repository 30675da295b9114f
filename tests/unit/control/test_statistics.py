"""Series and sums over minutes."""

from datetime import date

import pytest

from wrennd.control.statistics import STEPS, by_day, minutes_of, series
from wrennd.control.store.usage import Minute


def minute(at, running=1, vcpus=2, mem_mib=512):
    return Minute(minute=at, running=running, vcpus=vcpus, mem_mib=mem_mib)


@pytest.mark.parametrize("span", STEPS)
def test_a_series_has_a_point_for_each_step(span):
    length, step = STEPS[span]
    found = series([], 10_000_000, span)
    assert len(found) >= length // step
    assert found[-1].minute <= 10_000_000 < found[-1].minute + step
    assert all(each.running == 0 for each in found)


def test_a_point_is_the_most_of_its_minutes():
    found = series([minute(1000, running=1), minute(1001, running=4), minute(1)], 1004, "6h")
    assert [each.running for each in found if each.running] == [4]


def test_days():
    first, last = minutes_of(date(2026, 1, 1), date(2026, 1, 2))
    assert last - first == 2 * 1440 - 1
    found = by_day(
        [minute(first), minute(first + 1), minute(last)], date(2026, 1, 1), date(2026, 1, 2)
    )
    assert found == [(date(2026, 1, 1), 4.0, 1024.0), (date(2026, 1, 2), 2.0, 512.0)]
