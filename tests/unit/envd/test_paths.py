"""Where paths lead, and how errors are named."""

import errno
import os

import pytest

from wrennd.envd.paths import make_directories, printable, resolve, rpc_error
from wrennd.envd.users import Account

ANN = Account("ann", 1000, 1000, "/home/ann")
ME = Account("me", os.geteuid(), os.getegid(), "/")


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
        ("", "", "/home/ann"),
        ("//a", "", "/a"),
        ("/..", "", "/"),
        ("../../../etc", "", "/etc"),
        ("~root", "", "/home/ann/~root"),
    ],
)
def test_resolve(path, workdir, wanted):
    assert resolve(path, ANN, workdir) == wanted


def test_names_that_are_no_utf8_can_be_told():
    assert printable(os.fsdecode(b"a\xffb")) == "a\ufffdb"
    assert printable("ü") == "ü"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOENT, "not_found"),
        (errno.ENOTDIR, "invalid_argument"),
        (errno.EXDEV, "failed_precondition"),
        (errno.EACCES, "permission_denied"),
        (errno.ENOSPC, "resource_exhausted"),
        (errno.EIO, "internal"),
    ],
)
def test_errors_by_their_number(number, code):
    error = rpc_error(OSError(number, ""), "/a")
    assert error.code == code
    assert "'/a'" in error.message


def test_directories_are_made_as_needed(tmp_path):
    path = tmp_path / "a" / "b"
    make_directories(os.fspath(path), ME)
    make_directories(os.fspath(path), ME)
    assert path.stat().st_mode & 0o777 == 0o755
