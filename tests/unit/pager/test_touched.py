"""The recorded working set: its file, what is prefetched of it, and how it forgets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.pager.touched import TURNS, WINDOW_PAGES, TouchedError, WorkingSet

PAGES = WINDOW_PAGES * 40 + 7

flag_bytes = st.lists(st.booleans(), max_size=300).map(bytes)


def flags(*pages):
    made = bytearray(PAGES)
    for page in pages:
        made[page] = 1
    return bytes(made)


@given(flag_bytes, st.integers(0, 1 << 40))
def test_the_file_gives_back_what_was_recorded(found, turn):
    before = WorkingSet(found, turn)
    assert WorkingSet.decode(before.encode(), len(found)) == before


def test_the_file_is_what_the_document_says():
    assert WorkingSet(b"\1\0\0\0\0\0\0\0\1\1", 2).encode().hex() == (
        "57524e544f55434801000000fc54fff502000000000000000a000000000000000103"
    )


@given(flag_bytes, st.data())
def test_a_changed_file_is_noticed(found, data):
    raw = bytearray(WorkingSet(found, 1).encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(TouchedError):
        WorkingSet.decode(bytes(raw), len(found))


@given(flag_bytes, st.integers(0, 400))
def test_a_file_for_another_guest_is_noticed(found, pages):
    if pages != len(found):
        with pytest.raises(TouchedError):
            WorkingSet.decode(WorkingSet(found).encode(), pages)


@pytest.mark.parametrize("length", range(33))
def test_a_cut_file_is_noticed(length):
    with pytest.raises(TouchedError):
        WorkingSet.decode(WorkingSet(b"\1").encode()[:length], 1)


def test_one_window_in_eight_is_left_out_in_turn():
    full = bytes([1]) * PAGES
    for turn in range(2 * TURNS):
        wanted = WorkingSet(full, turn).to_prefetch()
        out = {page // WINDOW_PAGES for page, flag in enumerate(wanted) if not flag}
        assert out == set(range(turn % TURNS, 41, TURNS))


def test_what_is_needed_stays_and_what_is_not_is_forgotten():
    found = WorkingSet.empty(PAGES).after(flags(*range(PAGES)))
    for _ in range(TURNS):
        # A guest that only uses pages 100 to 110 faults there when they were not prefetched.
        wanted = found.to_prefetch()
        found = found.after(flags(*(page for page in range(100, 111) if not wanted[page])))
    assert {page // WINDOW_PAGES for page, flag in enumerate(found.flags) if flag} == {1}
    assert found.flags[100:111] == b"\1" * 11


@given(st.sets(st.integers(0, PAGES - 1)), st.sets(st.integers(0, PAGES - 1)), st.integers(0, 99))
def test_against_a_plain_model(recorded, faulted, turn):
    found = WorkingSet(flags(*recorded), turn).after(flags(*faulted))
    on_trial = {page for page in range(PAGES) if page // WINDOW_PAGES % TURNS == turn % TURNS}
    alive = {page // WINDOW_PAGES for page in faulted}
    kept = {page for page in recorded if page not in on_trial or page // WINDOW_PAGES in alive}
    assert found == WorkingSet(flags(*(kept | faulted)), turn + 1)
