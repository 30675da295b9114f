"""What a service manager hears of us."""

import os
import socket

import pytest

from wrennd.linux.notify import READY, notify


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A socket as a manager has it, and what it says of it in NOTIFY_SOCKET."""
    if request.param == "path":
        address = os.fspath(tmp_path / "notify")
        name = address
    else:
        address = f"@wrenn-test-{os.getpid()}-{os.urandom(4).hex()}"
        name = f"\0{address[1:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(name)
        heard.setblocking(False)
        yield heard, address


def test_words_arrive_as_one_message(manager):
    heard, address = manager
    notify(address, READY, "STATUS=at http://127.0.0.1:7070")
    assert heard.recv(4096) == b"READY=1\nSTATUS=at http://127.0.0.1:7070"


def test_nobody_who_listens_is_no_error(tmp_path):
    notify("", READY)
    notify(os.fspath(tmp_path / "gone"), READY)
