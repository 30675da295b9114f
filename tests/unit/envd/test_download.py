"""What a download's headers ask for."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.envd.download import choose_coding, http_date, parse_range
from wrennd.envd.files import FileError


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", "identity"),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip;q=0.1", "gzip"),
        ("gzip;q=0", "identity"),
        ("gzip;q=x", "gzip"),
        ("gzip, deflate", "identity"),
        ("gzip, deflate, br, zstd", "identity"),
        ("gzip, identity;q=0.5", "gzip"),
        ("gzip;q=0.5, identity", "identity"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("identity;q=0, *", "gzip"),
        ("*;q=0, identity", "identity"),
        ("*;q=0, gzip", "gzip"),
        ("br", "identity"),
        (",,", "identity"),
    ],
)
def test_codings(accepted, coding):
    assert choose_coding(accepted) == coding


@pytest.mark.parametrize("accepted", ["identity;q=0", "*;q=0", "br, identity;q=0, gzip;q=0"])
def test_codings_that_nobody_has(accepted):
    with pytest.raises(FileError) as caught:
        choose_coding(accepted)
    assert caught.value.status == 406


@given(st.text(max_size=40))
def test_any_text_is_a_coding_or_refused(accepted):
    with suppress(FileError):
        assert choose_coding(accepted) in ("gzip", "identity")


@pytest.mark.parametrize(
    ("text", "size", "wanted"),
    [
        ("bytes=0-0", 10, range(1)),
        ("bytes=3-", 10, range(3, 10)),
        ("bytes=-3", 10, range(7, 10)),
        ("bytes=-30", 10, range(10)),
        ("Bytes = 2 - 4 ", 10, range(2, 5)),
        ("bytes=2-99", 10, range(2, 10)),
        ("bytes=5-4", 10, None),
        ("bytes=0-1,2-3", 10, None),
        ("bytes=-", 10, None),
        ("bytes", 10, None),
        ("bytes=٣-", 10, None),
        ("bytes=" + "9" * 30 + "-", 10, None),
    ],
)
def test_ranges(text, size, wanted):
    assert parse_range(text, size) == wanted


@pytest.mark.parametrize("text", ["bytes=10-", "bytes=-0", "bytes=99-100"])
def test_ranges_without_a_byte(text):
    assert len(parse_range(text, 10)) == 0


def test_dates():
    assert http_date(784111777.9) == "Sun, 06 Nov 1994 08:49:37 GMT"
