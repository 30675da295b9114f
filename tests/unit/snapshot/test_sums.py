"""The file of page checksums."""

import zlib
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.snapshot.sums import ZERO_SUM, SumsError, decode_sums, encode_sums, zero_sums

VALUES = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50)


@given(VALUES)
def test_bytes_and_back(values):
    assert decode_sums(encode_sums(array("I", values))) == array("I", values)


@given(VALUES, st.data())
def test_a_flipped_bit_is_noticed(values, data):
    encoded = bytearray(encode_sums(array("I", values)))
    bit = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SumsError):
        decode_sums(bytes(encoded))


@given(VALUES, st.data())
def test_another_length_is_noticed(values, data):
    encoded = encode_sums(array("I", values))
    with pytest.raises(SumsError):
        decode_sums(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    with pytest.raises(SumsError):
        decode_sums(encoded + b"x")


def test_zero_pages_have_a_sum_too():
    assert zlib.crc32(bytes(4096)) == ZERO_SUM
    assert list(zero_sums(3)) == [ZERO_SUM] * 3


def test_the_bytes_are_little_endian():
    assert encode_sums(array("I", [1])).endswith(b"\1\0\0\0")
