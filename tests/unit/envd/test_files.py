"""Paths and modes of /files. Contents are in the contract suite."""

import pytest

from wrennd.envd.files import FileError, check_type, parse_mode, resolve
from wrennd.envd.users import Account

ANN = Account("ann", 1000, 1000, "/home/ann")


@pytest.mark.parametrize(
    ("path", "workdir", "wanted"),
    [
        ("/a/../b", "", "/b"),
        ("a", "", "/home/ann/a"),
        ("~", "", "/home/ann"),
        ("~/a/", "", "/home/ann/a"),
        ("a", "/srv", "/srv/a"),
        ("a", "sub", "/home/ann/sub/a"),
        ("~/a", "/srv", "/home/ann/a"),
    ],
)
def test_resolve(path, workdir, wanted):
    assert resolve(path, ANN, workdir) == wanted


def test_modes():
    assert parse_mode("") is None
    assert parse_mode("644") == 0o644
    assert parse_mode("04755") == 0o4755
    for text in ("9", "-1", "0o644", "17777", "0000644"):
        with pytest.raises(FileError):
            parse_mode(text)


def test_types():
    check_type({"content-type": "application/octet-stream; x=y"})
    for headers in ({}, {"content-type": "multipart/form-data"}):
        with pytest.raises(FileError) as caught:
            check_type(headers)
        assert caught.value.status == 415
