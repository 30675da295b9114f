"""Headers: every page covered, every malformed input refused."""

import ast
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.snapshot import header as module
from wrennd.snapshot.header import MAX_PAGES, PAGE_SIZE, Header, HeaderError, memfile_name

A, B = "a" * 32, "b" * 32
SMALL = Header((A, B), bytes((0, 1, 1, 2, 0, 0, 1)))


@st.composite
def headers(draw):
    sources = draw(st.integers(0, 5))
    table = list(range(1, sources + 1))
    table += draw(st.lists(st.integers(0, sources), min_size=1, max_size=300))
    shuffled = bytes(draw(st.permutations(table)))
    return Header(tuple(f"{source:032x}" for source in range(sources)), shuffled)


def naive_runs(table):
    found = []
    for page, source in enumerate(table):
        if found and found[-1][2] == source:
            found[-1][1] = page + 1
        else:
            found.append([page, page + 1, source])
    return [tuple(run) for run in found]


def repacked(table, *, builds=(), pages=None, tail=b""):
    """A header whose checksum is right, whatever is in it."""
    packed = zlib.compress(table) + tail
    head = struct.pack(
        "<8sHHIQI", b"WRENNHDR", 1, len(builds), PAGE_SIZE, pages or len(table), len(packed)
    )
    rest = b"".join(map(bytes.fromhex, builds)) + packed
    return head + struct.pack("<I", zlib.crc32(rest, zlib.crc32(head))) + rest


@given(headers())
def test_bytes_and_back(header):
    assert Header.decode(header.encode()) == header


@given(headers(), st.data())
def test_a_flipped_bit_is_noticed(header, data):
    encoded = bytearray(header.encode())
    bit = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    with pytest.raises(HeaderError):
        Header.decode(bytes(encoded))


@given(headers(), st.data())
def test_a_truncated_or_longer_one_is_noticed(header, data):
    encoded = header.encode()
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    with pytest.raises(HeaderError):
        Header.decode(cut)
    with pytest.raises(HeaderError):
        Header.decode(encoded + data.draw(st.binary(min_size=1, max_size=9)))


@given(st.binary(max_size=200))
def test_noise_is_refused(data):
    for prefix in (b"", b"WRENNHDR", SMALL.encode()[:32]):
        with pytest.raises(HeaderError):
            Header.decode(prefix + data)


@given(headers(), st.data())
def test_runs_are_the_longest_there_are(header, data):
    assert list(header.runs()) == naive_runs(header.table)
    start = data.draw(st.integers(0, header.pages))
    stop = data.draw(st.integers(start, header.pages))
    found = list(header.runs(start, stop))
    assert found == [(a + start, b + start, s) for a, b, s in naive_runs(header.table[start:stop])]


def test_long_runs_end_where_they_end():
    for length in (63, 64, 65, 319, 320, 321, 70_000, 300_001):
        header = Header((A,), bytes(length) + b"\1\0")
        assert list(header.runs()) == [(0, length, 0), (length, length + 1, 1),
                                       (length + 1, length + 2, 0)]  # fmt: skip
        assert header.run_end(5, 8) == 8


@pytest.mark.parametrize(
    ("builds", "table", "complaint"),
    [
        ((A,), b"\1\2", "more than its 1 builds"),
        ((A, B), b"\1\1", f"no page uses build {B}"),
        ((A, A), b"\1\2", "a build twice"),
        (("A" * 32,), b"\1", "is not a build"),
        (("../../etc/passwd",), b"\1", "is not a build"),
        ((), b"", "can't have 0 pages"),
        (tuple(f"{n:032x}" for n in range(256)), bytes(range(256)), "256 builds"),
    ],
)
def test_parts_that_make_no_header(builds, table, complaint):
    with pytest.raises(HeaderError, match=complaint):
        Header(builds, table)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "too short"),
        (b"WRENNSUM" + SMALL.encode()[8:], "not the bytes of a header"),
        (SMALL.encode()[:8] + b"\2\0" + SMALL.encode()[10:], "version 2, not 1"),
        (SMALL.encode()[:12] + b"\0\0\2\0" + SMALL.encode()[16:], "pages of 131072 bytes"),
        (repacked(b"\0", pages=MAX_PAGES + 1), "can't have"),
        (repacked(b"\0" * 9, pages=10), "not one of 10 pages"),
        (repacked(b"\0" * 11, pages=10), "not one of 10 pages"),
        (repacked(b"\0" * 10, tail=b"x"), "not one of 10 pages"),
        (repacked(b"\1\1", builds=(A,), tail=b"\0" * 40), "not one of 2 pages"),
        (repacked(b"\3\1", builds=(A,)), "more than its 1 builds"),
    ],
)
def test_bytes_that_are_no_header(data, complaint):
    with pytest.raises(HeaderError, match=complaint):
        Header.decode(data)


def test_a_table_that_unpacks_to_very_much_is_not_unpacked():
    bomb = repacked(bytes(16 << 20), pages=16)
    assert len(bomb) < 1 << 17
    with pytest.raises(HeaderError, match="not one of 16 pages"):
        Header.decode(bomb)


def test_sizes_and_names():
    assert (SMALL.pages, SMALL.size) == (7, 7 * PAGE_SIZE)
    assert memfile_name(A) == f"memfile.{A}"
    assert Header.zero(3) == Header((), b"\0\0\0")
    assert Header.zero(3) != Header((A,), b"\0\1\0")
    assert len({Header.zero(3), Header.zero(3), SMALL}) == 2


def test_the_pager_pays_for_nothing_else():
    from pathlib import Path

    tree = ast.parse(Path(module.__file__).read_text())
    names = {node.names[0].name for node in ast.walk(tree) if isinstance(node, ast.Import)}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"struct", "zlib", "collections.abc"}
