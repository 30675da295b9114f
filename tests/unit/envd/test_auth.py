"""Tokens and the user's name."""

import base64

import pytest

from wrennd.envd.auth import Access, user_name
from wrennd.envd.connect import RpcError


def basic(text: str) -> dict:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def test_open_until_there_is_a_token():
    access = Access()
    assert access.allows({})
    assert access.allows_init({}, "new")
    assert access.replace("one")
    assert not access.replace("one")
    assert not access.allows({})
    assert not access.allows({"x-access-token": "two"})
    assert access.allows({"x-access-token": "one"})


def test_init_is_let_in_by_the_old_token_or_the_same():
    access = Access()
    access.replace("one")
    assert access.allows_init({"x-access-token": "one"}, "two")
    assert access.allows_init({}, "one")
    assert not access.allows_init({}, "two")
    assert not access.allows_init({}, None)
    assert not access.allows_init({}, "")


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({}, ""),
        ({"authorization": "Bearer x"}, ""),
        (basic("ann:secret"), "ann"),
        (basic(":"), ""),
        (basic("ann"), "ann"),
        (basic("ü:"), "ü"),
    ],
)
def test_user_name(headers, name):
    assert user_name(headers) == name


@pytest.mark.parametrize("value", ["Basic ?", "Basic", "Basic /w==", "basic ü"])
def test_unreadable_names(value):
    if value == "Basic":
        assert user_name({"authorization": value}) == ""
    else:
        with pytest.raises(RpcError, match="not readable"):
            user_name({"authorization": value})
