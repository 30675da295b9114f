"""What is tried, and how a failure is told. The fork itself is in the contract suite."""

import errno

import pytest

from wrennd.envd.spawn import DEFAULT_PATH, Launch, explain, place
from wrennd.envd.users import Account

ANN = Account("ann", 1000, 1000, "/home/ann")


def launch(command="tool", env=None, cwd=""):
    made = Launch(command, [], env or {})
    place(made, cwd, ANN)
    return made


@pytest.mark.parametrize(
    ("cwd", "path", "is_given"),
    [
        ("", "/home/ann", False),
        ("~", "/home/ann", True),
        ("~/x", "/home/ann/x", True),
        ("x/y", "/home/ann/x/y", True),
        ("/x", "/x", True),
        ("~bob", "/home/ann/~bob", True),
    ],
)
def test_directories(cwd, path, is_given):
    made = launch(cwd=cwd)
    assert (made.cwd, made.is_cwd_given) == (path, is_given)


def test_candidates():
    assert launch("./tool").candidates == ["./tool"]
    assert launch(env={"PATH": "/a::/b"}).candidates == ["/a/tool", "./tool", "/b/tool"]
    assert len(launch().candidates) == len(DEFAULT_PATH.split(":"))


@pytest.mark.parametrize(
    ("stage", "number", "code"),
    [
        ("exec", errno.ENOENT, "not_found"),
        ("exec", errno.EACCES, "permission_denied"),
        ("exec", errno.ENOEXEC, "permission_denied"),
        ("exec", errno.E2BIG, "invalid_argument"),
        ("exec", errno.ENOMEM, "resource_exhausted"),
        ("cwd", errno.ENOENT, "invalid_argument"),
        ("cwd", errno.ENOTDIR, "invalid_argument"),
        ("cwd", errno.EACCES, "invalid_argument"),
        ("user", errno.EPERM, "unauthenticated"),
        ("setup", errno.EMFILE, "resource_exhausted"),
        ("setup", errno.EIO, "internal"),
    ],
)
def test_codes_of_failures(stage, number, code):
    assert explain(launch(), f"{stage} {number}".encode()).code == code
