"""Where the control plane may listen, and what its arguments mean."""

import pytest

from wrennd.control.settings import Settings, is_loopback, split_listen
from wrennd.core.errors import InvalidInput


def test_arguments():
    found = Settings.from_arguments(
        ["--database", "sqlite:////x.db", "--agent", "/a.sock", "--listen", "[::1]:80"]
    )
    assert (found.database, str(found.agent), found.listen) == (
        "sqlite:////x.db",
        "/a.sock",
        "[::1]:80",
    )
    assert not found.is_insecure_http


@pytest.mark.parametrize("listen", ["0.0.0.0:7070", "192.0.2.1:7070", "[::]:7070", "name:7070"])
def test_others_may_reach_it_only_when_that_was_said(listen):
    with pytest.raises(InvalidInput):
        Settings(listen=listen)
    assert Settings(listen=listen, is_insecure_http=True).listen == listen


@pytest.mark.parametrize(
    ("text", "found"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:7070", ("::1", 7070)), ("a:1", ("a", 1))],
)
def test_split_listen(text, found):
    assert split_listen(text) == found


@pytest.mark.parametrize("text", ["", ":", "127.0.0.1", "127.0.0.1:", "x:y", "x:70000", "x:-1"])
def test_what_is_no_address(text):
    with pytest.raises(InvalidInput):
        split_listen(text)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("x", False)],
)
def test_is_loopback(host, expected):
    assert is_loopback(host) is expected
