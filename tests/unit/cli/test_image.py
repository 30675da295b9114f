from datetime import UTC, datetime

import pytest

from wrennd.cli.image import age_s, format_age

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("created", "age"),
    [
        ("2026-01-02T00:00:00+00:00", 0),
        ("2026-01-01T23:59:58.5+00:00", 1),
        ("2026-01-01T00:00:00+01:00", 90000),
        ("2027-01-01T00:00:00+00:00", 0),
    ],
)
def test_ages(created, age):
    assert age_s(created, NOW) == age


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (86399, "23 h"), (172800, "2 d")],
)
def test_an_age_is_told_in_its_largest_unit(seconds, text):
    assert format_age(seconds) == text
