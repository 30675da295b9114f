"""JSON without the json package, held against it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.envd import jsontext

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@given(values)
def test_encode_is_what_json_decodes(value):
    text = jsontext.encode(value)
    assert text.isascii()
    assert json.loads(text) == value


@given(values, st.sampled_from(["", " ", "\n\t"]))
def test_decode_is_what_json_encodes(value, space):
    text = space + json.dumps(value, ensure_ascii=False, indent=1) + space
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert jsontext.decode(text.encode()) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b"[1,",
        b'{"a"}',
        b"nul",
        b"NaN",
        b"-Infinity",
        b'"\\x"',
        b'"\x01"',
        b"1 2",
        b"\xff",
        b"\xed\xa0\x80",
        b"[" * 50000,
        b"1" * 10000,
        b"{]",
    ],
)
def test_what_is_not_json_is_a_value_error(data):
    with pytest.raises(ValueError, match=r"."):
        jsontext.decode(data)


def test_only_objects_are_objects():
    assert jsontext.decode_object(b"") == {}
    assert jsontext.decode_object(b'{"a":1.5}') == {"a": 1.5}
    with pytest.raises(ValueError, match="not an object"):
        jsontext.decode_object(b"[]")


def test_errors_need_no_json_package():
    import subprocess
    import sys

    from envd_agent import SOURCE

    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        "from wrennd.envd import jsontext\n"
        "try: jsontext.decode(b'{]')\n"
        "except ValueError as error: print('refused')\n"
    )
    argv = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "refused\n"
