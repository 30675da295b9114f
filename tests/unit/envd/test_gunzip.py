"""Packed bodies, however they were split."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.envd.gunzip import PIECE_BYTES, Gunzip


def unpack(pieces):
    gunzip = Gunzip()
    found = [out for piece in pieces for out in gunzip.feed(piece)]
    gunzip.close()
    assert all(0 < len(out) <= PIECE_BYTES for out in found)
    return b"".join(found)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3), st.integers(1, 50))
def test_any_members_in_any_pieces(members, step):
    body = b"".join(gzip.compress(member) for member in members)
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    assert unpack(pieces) == b"".join(members)


def test_much_comes_in_pieces():
    assert unpack([gzip.compress(bytes(5_000_000))]) == bytes(5_000_000)


@given(st.binary(min_size=1, max_size=100))
def test_any_bytes_are_gzip_or_an_error(body):
    with pytest.raises(ValueError, match="gzip"):
        unpack([body])


@given(st.integers(0, 28))
def test_what_is_cut_short_is_an_error(cut):
    with pytest.raises(ValueError, match="gzip"):
        unpack([gzip.compress(b"some text")[:cut]])
