import select
import socket
import threading

import pytest

from wrennd.core.errors import DeadlineExceeded, VmmFailed
from wrennd.vmm import client


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'{"fault_message":"no kernel"}', "no kernel"),
        (b'{ "error": "bad line\nAll previous" }', "bad line\nAll previous"),
        (b"<html>", "<html>"),
        (b"[1]", "[1]"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_both_error_shapes_and_nonsense_become_text(raw, text):
    assert client.fault_text(raw) == text


def test_an_answer_that_is_no_object_is_the_vmms_fault():
    with pytest.raises(VmmFailed, match="not a JSON object"):
        client.decode(b"[]")


def test_a_missing_socket_is_the_vmms_fault(tmp_path):
    with pytest.raises(VmmFailed, match="No such file"):
        client.ApiClient(tmp_path / "api.sock").describe()


def test_a_link_in_place_of_the_socket_is_not_followed(tmp_path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other.sock"))
        other.listen()
        (tmp_path / "api.sock").symlink_to("other.sock")
        with pytest.raises(VmmFailed, match="not a socket"):
            client.ApiClient(tmp_path / "api.sock").describe()


def test_a_vmm_that_drips_bytes_gains_no_time(tmp_path):
    """Every byte comes within any per-read timeout; the whole must still end."""
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        dripping = threading.Thread(target=drip, args=(listener,))
        dripping.start()
        slow = client.ApiClient(path)
        with pytest.raises(DeadlineExceeded, match="did not answer"):
            slow._call("GET", "/", None, Fast())
        slow.close()
        dripping.join()


class Fast:
    """A speed for the test alone."""

    timeout_s = 0.5


def drip(listener):
    peer, _ = listener.accept()
    with peer:
        peer.recv(1024)
        try:
            peer.sendall(b"HTTP/1.1 200 \r\n")
            while True:
                peer.sendall(b"X")
                select.select([], [], [], 0.02)
        except (BrokenPipeError, ConnectionResetError):
            return
