"""What /grow is told, and what it finds where there is nothing to grow."""

import os

import pytest

from wrennd.envd import grow


@pytest.mark.parametrize(
    ("query", "length"), [("", 0), ("bytes=0", 0), ("bytes=4294967296", 1 << 32)]
)
def test_how_long_the_disk_is_to_be(query, length):
    assert grow.parse_bytes(query) == length


@pytest.mark.parametrize("value", ["-1", "1.5", "x", "", "9" * 19, "\u0663"])
def test_what_is_no_length_is_refused(value):
    with pytest.raises(ValueError, match="must be a number of bytes"):
        grow.parse_bytes(f"bytes={value}")


def test_what_lies_on_no_disk_has_no_length():
    with pytest.raises(FileNotFoundError):
        grow.disk_bytes("/proc")


def test_what_is_no_ext4_is_told_by_the_childs_exit_code():
    pid = grow.fork_resize("/proc", 1 << 30)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) > 0
