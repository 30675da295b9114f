"""A process of another test session is never taken for one's own."""

import pytest

from whole_name import is_named


@pytest.mark.parametrize(
    ("name", "text", "is_there"),
    [
        ("/d/data", "agent --data-dir /d/data --socket /run/a", True),
        ("/d/data", "agent --data-dir=/d/data", True),
        ("/d/data", "qemu /d/data/sandboxes/abc/disk", True),
        ("/d/data", "agent --data-dir /d/data-gw1 --socket /run/a", False),
        ("/d/data", "agent --data-dir /d/data.old", False),
        ("/d/data", "agent --data-dir /elsewhere/d/data", False),
        ("127.0.0.1:80", "wrenn up --listen 127.0.0.1:8080", False),
        ("wrenn up", "python /venv/bin/wrenn up --listen 127.0.0.1:80", True),
        ("wrennd.control", "python -m wrennd.control --database d", True),
    ],
)
def test_only_whole_names_are_found(name, text, is_there):
    assert is_named(name, text) is is_there
