from dataclasses import dataclass
from enum import StrEnum

import pytest

from wrennd.qemu_vmm.json_reader import JsonError
from wrennd.qemu_vmm.schema import (
    Field,
    anything,
    boolean,
    checked,
    choice,
    decode,
    listed,
    one_of,
    optional,
    path,
    string,
    struct,
    unsigned,
)


class Colour(StrEnum):
    RED = "Red"
    BLUE = "Blue"


@dataclass(frozen=True, kw_only=True)
class Thing:
    name: str
    size: int
    a_colour: Colour | None


THING = struct(
    "Thing",
    Thing,
    (
        Field(key="name", kind=checked(string, lambda s: "too loud" if s.isupper() else "")),
        Field(key="size", kind=unsigned("u16"), required=True),
        Field(key="a-colour", kind=optional(choice(Colour))),
    ),
)


def text_of(kind, data):
    with pytest.raises(JsonError) as caught:
        decode(kind, data)
    return str(caught.value)


def test_an_object_becomes_its_value():
    data = b'{"a-colour": "Red", "name": "x", "size": 65535}'
    assert decode(THING, data) == Thing(name="x", size=65535, a_colour=Colour.RED)
    assert decode(THING, b'{"size": 0, "name": "", "a-colour": null}').a_colour is None


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        (THING, b"[]", "invalid type: sequence, expected struct Thing at line 1 column 0"),
        (THING, b"5", "invalid type: integer `5`, expected struct Thing at line 1 column 1"),
        (THING, b"null", "invalid type: null, expected struct Thing at line 1 column 4"),
        (THING, b'{"size": 65536}', "invalid value: integer `65536`, expected u16 at line 1 "
         "column 14"),
        (THING, b'{"size": {}}', "invalid type: map, expected u16 at line 1 column 9"),
        (THING, b'{"size": true}', "invalid type: boolean `true`, expected u16 at line 1 "
         "column 13"),
        # A check of our own is placed after the bracket that closes the object, as serde does.
        (THING, b'{"name": "LOUD"}', "too loud at line 1 column 16"),
        (THING, b'{"name": "LOUD" , "size": 1}', "too loud at line 1 column 16"),
        (THING, b'{"size":1} x', "trailing characters at line 1 column 12"),
        (path, b"1", "invalid type: integer `1`, expected path string at line 1 column 1"),
        (boolean, b"1.5", "invalid type: floating point `1.5`, expected a boolean at line 1 "
         "column 3"),
        (boolean, b'"a\\"b"', 'invalid type: string "a\\"b", expected a boolean at line 1 '
         "column 6"),
        (listed(string), b'["a", 1]', "invalid type: integer `1`, expected a string at line 1 "
         "column 7"),
        (listed(string), b"{}", "invalid type: map, expected a sequence at line 1 column 0"),
    ],
)  # fmt: skip
def test_what_is_said_about_other_values(kind, data, text):
    assert text_of(kind, data) == text


def test_a_choice_may_be_an_object_of_one_key():
    assert decode(choice(Colour), b'{"Red": null}') is Colour.RED
    for data, text in (
        (b"{}", "expected value at line 1 column 2"),
        (b"{1:null}", "invalid type: integer `1`, expected variant identifier at line 1 column 2"),
        (b'{"Red": 1}', "invalid type: integer `1`, expected unit at line 1 column 9"),
        (b'{"Red": null, "Blue": null}', "expected value at line 1 column 12"),
        (b'{"Red": null', "EOF while parsing an object at line 1 column 12"),
        (b'{"pink": null}', "unknown variant `pink`, expected `Red` or `Blue` at line 1 column 7"),
    ):
        assert text_of(choice(Colour), data) == text


def test_lists_and_anything():
    assert decode(listed(string), b' [ "a" , "b" ] ') == ["a", "b"]
    assert decode(listed(string), b"[]") == []
    assert decode(anything, b'{"a": [1, {}]}') is True
    assert decode(anything, b"null") is False


def test_names_are_listed_as_serde_does():
    assert one_of(["a"]) == "expected `a`"
    assert one_of(["a", "b"]) == "expected `a` or `b`"
    assert one_of(["a", "b", "c"]) == "expected one of `a`, `b`, `c`"
    assert one_of([]) == "there are no fields"
