"""Paths and modes of /files. Contents are in the contract suite."""

import pytest

from wrennd.envd.files import FileError, check_type, parse_mode


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
