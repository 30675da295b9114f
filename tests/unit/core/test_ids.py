"""Ids by their first characters."""

import pytest

from wrennd.core.errors import InvalidInput, NotFound
from wrennd.core.ids import match_sandbox_id

IDS = ("abcd" + "0" * 16, "abcd" + "1" * 16, "z" * 20)


@pytest.mark.parametrize("text", ["abcd0", IDS[0], "zzzz"])
def test_a_beginning_that_only_one_has_is_enough(text):
    assert match_sandbox_id(text, IDS).startswith(text)


@pytest.mark.parametrize(
    ("text", "error", "word"),
    [
        ("abcd", InvalidInput, f"2 sandboxes: {IDS[0]}, {IDS[1]}"),
        ("nosuch", NotFound, "no sandbox nosuch"),
        ("abc", InvalidInput, "not a sandbox id"),
        ("", InvalidInput, "not a sandbox id"),
        ("../x", InvalidInput, "not a sandbox id"),
        ("ABCD0", InvalidInput, "not a sandbox id"),
        ("z" * 21, InvalidInput, "not a sandbox id"),
        ("zzzz\n", InvalidInput, "not a sandbox id"),
    ],
)
def test_what_names_none_or_several(text, error, word):
    with pytest.raises(error) as caught:
        match_sandbox_id(text, IDS)
    assert word in str(caught.value)
    assert caught.value.hint


def test_many_candidates_are_not_all_listed():
    ids = ["abcd" + letter * 16 for letter in "efghij"]
    with pytest.raises(InvalidInput, match=r"any of 6 sandboxes: .*, \.\.\."):
        match_sandbox_id("abcd", ids)
