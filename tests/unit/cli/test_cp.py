"""What `wrenn cp` takes for a sandbox's side."""

import pytest

from wrennd.cli.cp import Place
from wrennd.core.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "sandbox", "path"),
    [
        ("abcd:/x", "abcd", "/x"),
        ("abcd:x:y", "abcd", "x:y"),
        ("./a:b", "", "./a:b"),
        ("/a:b", "", "/a:b"),
        ("plain", "", "plain"),
    ],
)
def test_a_colon_before_the_first_slash_ends_an_id(text, sandbox, path):
    assert Place.parse(text) == Place(sandbox=sandbox, path=path)


def test_an_id_without_a_path():
    with pytest.raises(InvalidInput, match="names no path"):
        Place.parse("abcd:")
