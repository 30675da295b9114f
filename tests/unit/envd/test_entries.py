"""Modes as Go prints them, and moments as protobuf reads them."""

import stat

import pytest

from wrennd.envd.clock import format_moment, parse_moment
from wrennd.envd.entries import file_type, permissions


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (stat.S_IFREG | 0o644, "-rw-r--r--"),
        (stat.S_IFDIR | 0o755, "drwxr-xr-x"),
        (stat.S_IFLNK | 0o777, "Lrwxrwxrwx"),
        (stat.S_IFREG | 0o4755, "urwxr-xr-x"),
        (stat.S_IFDIR | 0o2775, "dgrwxrwxr-x"),
        (stat.S_IFDIR | 0o1777, "dtrwxrwxrwx"),
        (stat.S_IFCHR | 0o666, "Dcrw-rw-rw-"),
        (stat.S_IFBLK | 0o660, "Drw-rw----"),
        (stat.S_IFIFO | 0o600, "prw-------"),
        (stat.S_IFSOCK | 0o111, "S--x--x--x"),
        (stat.S_IFREG, "----------"),
    ],
)
def test_permissions(mode, text):
    assert permissions(mode) == text


def test_types():
    assert file_type(stat.S_IFREG) == "FILE_TYPE_FILE"
    assert file_type(stat.S_IFDIR) == "FILE_TYPE_DIRECTORY"
    assert file_type(stat.S_IFIFO) == "FILE_TYPE_UNSPECIFIED"


@pytest.mark.parametrize(
    ("moment_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1612325106123456789, "2021-02-03T04:05:06.123456789Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (-(10**30), "0001-01-01T00:00:00.000000000Z"),
        (1 << 80, "9999-12-31T23:59:59.706176000Z"),
    ],
)
def test_moments(moment_ns, text):
    assert format_moment(moment_ns)[:19] == text[:19]
    if 0 <= moment_ns < 1 << 62:
        assert format_moment(moment_ns) == text
        assert parse_moment(text) == moment_ns
