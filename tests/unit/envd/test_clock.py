"""Moments as text, held against datetime."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.envd.clock import Clock, parse_moment

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
moments = st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(2400, 1, 1))
zones = st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23)).map(
    lambda delta: datetime.timezone(
        datetime.timedelta(minutes=delta // datetime.timedelta(minutes=1))
    )
)


@given(moments, zones)
def test_as_datetime_understands_it(moment, zone):
    moment = moment.replace(tzinfo=zone)
    wanted_us = (moment - EPOCH) // datetime.timedelta(microseconds=1)
    assert parse_moment(moment.isoformat()) == wanted_us * 1000


def test_forms():
    assert parse_moment("1970-01-01T00:00:00Z") == 0
    assert parse_moment("2026-01-01t00:00:00.123456789z") == 1767225600123456789
    assert parse_moment("2026-01-01T00:00:00.5+00:00") == 1767225600500000000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:00.1234567890Z",
        "2026-01-01T00:00:00.xZ",
        "2026-01-01T00:00:00+1",
        "2026-01-01T00:00:00+aa:bb",
        "²026-01-01T00:00:00Z",
    ],
)
def test_what_is_no_moment(text):
    with pytest.raises(ValueError, match=r"."):
        parse_moment(text)


def test_the_clock_runs():
    one = Clock().now_ns()
    assert Clock().now_ns() >= one > parse_moment("2020-01-01T00:00:00Z")
