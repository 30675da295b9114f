"""Composing and collapsing, held against a model that goes page by page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_model import apply, build_name, chains, described
from wrennd.snapshot.chain import CLEAR, DATA, KEEP, collapsed, compose, copies, has_room
from wrennd.snapshot.header import Header, HeaderError


@given(chains())
def test_a_chain_says_of_each_page_what_the_model_says(chain):
    pages, layers = chain
    header, memory = Header.zero(pages), [0] * pages
    for number, layer in enumerate(layers, start=1):
        header = compose(header, layer, build_name(number))
        memory = apply(memory, layer, number)
        assert described(header) == memory
        assert {int(build, 16) for build in header.builds} == set(memory) - {0}


@given(chains())
def test_a_collapsed_chain_has_the_same_pages_in_one_build(chain):
    pages, layers = chain
    header, memory = Header.zero(pages), [0] * pages
    for number, layer in enumerate(layers, start=1):
        header = compose(header, layer, build_name(number))
        memory = apply(memory, layer, number)
    merged = collapsed(header, build_name(99))
    assert described(merged) == [99 if page else 0 for page in memory]
    copied = {p: header.builds[s - 1] for a, b, s in copies(header) for p in range(a, b)}
    assert copied == {page: build_name(n) for page, n in enumerate(memory) if n}


@given(chains(max_layers=3), st.data())
def test_a_collapsed_chain_goes_on(chain, data):
    pages, layers = chain
    header, memory = collapsed(Header((build_name(7),), b"\1" * pages), build_name(8)), [8] * pages
    for number, layer in enumerate(layers, start=20):
        header = compose(header, layer, build_name(number))
        memory = apply(memory, layer, number)
    assert described(header) == memory


def test_a_zeroed_page_hides_the_parents_data():
    parent = compose(Header.zero(3), bytes((DATA, DATA, KEEP)), build_name(1))
    child = compose(parent, bytes((KEEP, CLEAR, KEEP)), build_name(2))
    assert described(child) == [1, 0, 0]


def test_an_empty_diff_changes_nothing():
    parent = compose(Header.zero(3), bytes((DATA, DATA, KEEP)), build_name(1))
    assert compose(parent, bytes(3), build_name(2)) == parent


def test_a_build_without_pages_is_not_named():
    parent = compose(Header.zero(2), bytes((DATA, DATA)), build_name(1))
    middle = compose(parent, bytes((DATA, KEEP)), build_name(2))
    child = compose(middle, bytes((DATA, KEEP)), build_name(3))
    assert child.builds == (build_name(1), build_name(3))
    assert collapsed(compose(child, bytes((CLEAR, CLEAR)), build_name(4)), build_name(5)) == (
        Header.zero(2)
    )


def test_255_builds_and_no_more():
    header = Header.zero(256)
    for number in range(255):
        layer = bytearray(256)
        layer[number] = DATA
        assert has_room(header)
        header = compose(header, bytes(layer), build_name(number + 1))
    assert not has_room(header)
    assert Header.decode(header.encode()) == header
    with pytest.raises(HeaderError, match="more than 255"):
        compose(header, bytes(255) + bytes((DATA,)), build_name(999))


@pytest.mark.parametrize(
    ("layer", "build", "complaint"),
    [
        (bytes(3), build_name(2), "3 pages fits no memory of 2"),
        (bytes((DATA, 3)), build_name(2), "nothing else"),
        (bytes(2), build_name(1), "the parent's already"),
    ],
)
def test_what_does_not_fit(layer, build, complaint):
    parent = Header((build_name(1),), b"\1\1")
    with pytest.raises(HeaderError, match=complaint):
        compose(parent, layer, build)
