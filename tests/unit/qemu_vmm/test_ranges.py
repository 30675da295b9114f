from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from wrennd.qemu_vmm import ranges

LISTS = st.sets(st.integers(min_value=0, max_value=40)).map(
    lambda items: ranges.union([(item, item + 1) for item in items], [])
)


def items(found):
    return {item for start, end in found for item in range(start, end)}


@given(LISTS, LISTS)
def test_they_are_sets(one, other):
    both, rest = ranges.union(one, other), ranges.without(one, other)
    assert items(both) == items(one) | items(other)
    assert items(rest) == items(one) - items(other)
    assert ranges.length(both) == len(items(both))
    for found in (both, rest):
        assert found == sorted(found)
        assert all(start < end for start, end in found)
    assert all(first[1] < second[0] for first, second in pairwise(both))


@given(LISTS, st.integers(min_value=1, max_value=9), st.integers(min_value=1, max_value=3))
def test_batches_are_the_same_bytes_in_order(whole, max_bytes, max_ranges):
    found = list(ranges.batches(whole, max_bytes=max_bytes, max_ranges=max_ranges))
    flat = [one for batch in found for one in batch]
    assert flat == sorted(flat)
    assert items(flat) == items(whole)
    assert ranges.length(flat) == ranges.length(whole)
    for batch in found:
        assert 0 < ranges.length(batch) <= max_bytes
        assert len(batch) <= max_ranges
