"""What a VMM may say of its memory, and what is refused."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.pager.handshake import Handshake, Refused, Region, decode

PAGE = 4096
BASE = 0x7F12_3456_7000
FIRECRACKER = (
    b'[{"base_host_virt_addr":140234567680000,"size":134217728,"offset":0,"page_size":4096,'
    b'"page_size_kib":4096}]'
)


def region(**changes):
    plain = {"base_host_virt_addr": BASE, "size": 10 * PAGE, "offset": 0, "page_size": PAGE}
    return plain | changes


def encode(*regions):
    return json.dumps(regions).encode()


def test_firecrackers_message():
    assert decode(FIRECRACKER, 1 << 15) == Handshake(
        (Region(address=140234567680000, first=0, pages=1 << 15),), wp_async=False
    )


def test_two_regions_in_any_order():
    low = region(size=6 * PAGE)
    high = region(base_host_virt_addr=BASE - 8 * PAGE, size=4 * PAGE, offset=6 * PAGE)
    found = decode(encode(high, low), 10)
    assert found is not None
    assert found.regions == (Region(BASE, 0, 6), Region(BASE - 8 * PAGE, 6, 4))
    assert [r.shift + (r.first << 12) for r in found.regions] == [BASE, BASE - 8 * PAGE]


@pytest.mark.parametrize(
    "sizes",
    [
        {"page_size": 4096},
        {"page_size_kib": 4096},
        {"page_size_kib": 4},
        {"page_size": 4096, "page_size_kib": 4},
        {},
    ],
)
def test_the_page_size_was_called_many_things(sizes):
    plain = region()
    del plain["page_size"]
    assert decode(encode(plain | sizes), 10)


def test_our_own_key():
    assert decode(encode(region(wp_async=True)), 10).wp_async


def test_unknown_keys_are_for_later_versions():
    assert decode(encode(region(colour="blue")), 10)


@given(st.integers(0, len(FIRECRACKER) - 1))
def test_a_part_of_it_is_waited_for(length):
    if length == 0:
        with pytest.raises(Refused):
            decode(b"", 1 << 15)
    else:
        assert decode(FIRECRACKER[:length], 1 << 15) is None


TWO = region(base_host_virt_addr=BASE + PAGE, size=5 * PAGE, offset=5 * PAGE)


@pytest.mark.parametrize(
    ("regions", "reason"),
    [
        ([], "1 to 64 regions"),
        ([region()] * 65, "1 to 64 regions"),
        ([[]], "no JSON object"),
        ([None], "no JSON object"),
        ([region(size=9 * PAGE)], "9 pages, the snapshot has 10"),
        ([region(size=11 * PAGE)], "11 pages"),
        ([region(size=0)], "0 bytes"),
        ([region(size=10 * PAGE + 1)], "size is no multiple"),
        ([region(size=-PAGE)], "size is no multiple"),
        ([region(size=float(PAGE))], "size is no multiple"),
        ([region(size="40960")], "size is no multiple"),
        ([region(size=1 << 64)], "size is no multiple"),
        ([region(size=None)], "size is no multiple"),
        ([region(offset=PAGE)], "page 0"),
        ([region(offset=False)], "offset is no multiple"),
        ([region(base_host_virt_addr=0)], "can't be"),
        ([region(base_host_virt_addr=1 << 47)], "can't be"),
        ([region(base_host_virt_addr=(1 << 47) - PAGE)], "can't be"),
        ([region(base_host_virt_addr=BASE + 1)], "base_host_virt_addr is no multiple"),
        ([region(page_size=2 << 20)], "pages of 2097152 bytes"),
        ([region(page_size=2048)], "pages of 2097152 bytes"),
        ([region(page_size=True)], "pages of True bytes"),
        ([region(page_size=None)], "pages of None bytes"),
        ([region(size=5 * PAGE), region(size=5 * PAGE)], "page 5"),
        ([region(size=5 * PAGE), TWO], "overlap"),
        ([region(size=6 * PAGE), TWO | {"base_host_virt_addr": BASE + (1 << 30)}], "page 6"),
        ([region(wp_async=1)], "wp_async"),
        ([region(wp_async=[])], "wp_async"),
        (
            [
                region(size=5 * PAGE, wp_async=True),
                TWO | {"base_host_virt_addr": BASE + (1 << 30)},
            ],
            "wp_async",
        ),
    ],
)
def test_what_does_not_fit_the_snapshot_is_refused(regions, reason):
    with pytest.raises(Refused, match=reason):
        decode(encode(*regions), 10)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"{}",
        b'"[',
        b" []",
        b"[\xff",
        b"[" * 60_000,
        b"[" + b"9" * 60_000 + b"]",
        b"[" + b" " * 70_000,
        FIRECRACKER + b"\xe4",
    ],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(Refused):
        decode(data, 10)


@given(st.binary(max_size=200))
def test_no_bytes_are_taken_for_more_than_a_beginning(data):
    with suppress(Refused):
        assert decode(data, 10) is None


values = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 1 << 65), st.floats(allow_nan=False), st.text()
)
keys = st.sampled_from(
    ["base_host_virt_addr", "size", "offset", "page_size", "page_size_kib", "wp_async"]
)


@given(st.lists(st.dictionaries(keys, values), max_size=3), st.integers(1, 100))
def test_what_is_taken_covers_the_snapshot_exactly(regions, pages):
    try:
        found = decode(json.dumps(regions).encode(), pages)
    except Refused:
        return
    assert found is not None
    covered = [page for r in found.regions for page in range(r.first, r.first + r.pages)]
    assert covered == list(range(pages))
