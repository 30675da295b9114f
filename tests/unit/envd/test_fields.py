"""Fields of messages: spellings, types, refusals."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.envd import fields
from wrennd.envd.connect import RpcError


def test_both_spellings_and_null():
    assert fields.text({"watcherId": "a"}, "watcher_id") == "a"
    assert fields.text({"watcher_id": "a"}, "watcher_id") == "a"
    assert fields.text({"watcher_id": None, "watcherId": "b"}, "watcher_id") == "b"
    assert fields.text({"a": None}, "a") is None
    assert fields.message({}, "a") is None
    assert fields.texts({}, "a") == []
    assert fields.text_map({}, "a") == {}


@pytest.mark.parametrize(
    ("value", "number"), [(0, 0), ("17", 17), (17.0, 17), (2**32 - 1, 2**32 - 1)]
)
def test_numbers(value, number):
    assert fields.u32({"a": value}, "a") == number


@pytest.mark.parametrize("value", [-1, 2**32, "x", "-1", 1.5, True, [], "99999999999", "²"])
def test_bad_numbers(value):
    with pytest.raises(RpcError, match="a must be"):
        fields.u32({"a": value}, "a")


@given(st.binary(max_size=50))
def test_bytes_in_any_base64(data):
    for encoded in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        text = encoded.decode()
        assert fields.blob({"a": text}, "a") == data
        assert fields.blob({"a": text.rstrip("=")}, "a") == data


@pytest.mark.parametrize("value", ["?", "a", "ü", 5, "a b c d"])
def test_bad_bytes(value):
    with pytest.raises(RpcError, match="a must be base64"):
        fields.blob({"a": value}, "a")


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (fields.text, 5),
        (fields.text, "a\0"),
        (fields.text, "\ud800"),
        (fields.boolean, 1),
        (fields.message, []),
        (fields.texts, "abc"),
        (fields.texts, [1]),
        (fields.text_map, []),
        (fields.text_map, {"x": 1}),
    ],
)
def test_wrong_types_are_named(read, value):
    with pytest.raises(RpcError, match="a must be") as caught:
        read({"a": value}, "a")
    assert caught.value.code == "invalid_argument"
