"""A client that sends anything: the server that runs answers the next one."""

import contextlib
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaks import LeakCheck
from vmm_corpus import requests
from vmm_server import Server

PIECES = st.sampled_from((b"\r\n", b" ", b"\0", b'"', b"{", b"[", b":", b"\\u", b"-", b"\xff"))
CHANGES = st.lists(
    st.tuples(st.integers(min_value=0), st.integers(0, 9), st.binary(max_size=4) | PIECES),
    max_size=3,
)
STREAMS = st.lists(st.tuples(st.sampled_from(requests(fatal=False)), CHANGES), max_size=5)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    check = LeakCheck()
    with Server(tmp_path_factory.mktemp("lasting")) as server:
        yield server.wait_for_api()
    check.finish()


def changed(data, changes):
    for place, length, piece in changes:
        at = place % (len(data) + 1)
        data = data[:at] + piece + data[at + length :]
    return data


@settings(max_examples=60)
@given(STREAMS, st.booleans())
def test_whatever_is_sent_the_next_client_is_served(lasting, stream, waits):
    """The one before is gone at once, or reads to the end."""
    with lasting.connect() as client:
        client.send(b"".join(changed(*item) for item in stream))
        if waits:
            client.send(b"\r\n" + b"GET / HTTP/1.1\r\n\r\n" * 2)
            client.socket.shutdown(socket.SHUT_WR)
            # Firecracker throws away what it would still have answered.
            with contextlib.suppress(ConnectionResetError):
                while client.socket.recv(65536):
                    pass
    assert lasting.get("/")["state"] == "Not started"
