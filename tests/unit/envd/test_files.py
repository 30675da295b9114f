"""Paths and modes of /files. Contents are in the contract suite."""

import pytest

from wrennd.envd.files import FileError, parse_mode
from wrennd.envd.upload import check_type


def test_modes():
    assert parse_mode("") is None
    assert parse_mode("644") == 0o644
    assert parse_mode("04755") == 0o4755
    for text in ("9", "-1", "0o644", "17777", "0000644"):
        with pytest.raises(FileError):
            parse_mode(text)


def test_types():
    check_type("application/octet-stream", "")
    check_type("multipart/form-data", "GZIP")
    for kind, coding in (("", ""), ("text/plain", ""), ("application/octet-stream", "br")):
        with pytest.raises(FileError) as caught:
            check_type(kind, coding)
        assert caught.value.status == 415
