import pytest

from wrennd.core.errors import VmmFailed
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
    import socket

    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other.sock"))
        other.listen()
        (tmp_path / "api.sock").symlink_to("other.sock")
        with pytest.raises(VmmFailed, match="not a socket"):
            client.ApiClient(tmp_path / "api.sock").describe()
