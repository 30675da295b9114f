import pytest

from wrennd.core.sizes import format_bytes


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (4 << 20, "4.0 MiB"), (3 << 40, "3.0 TiB")],
)
def test_format(count, text):
    assert format_bytes(count) == text
