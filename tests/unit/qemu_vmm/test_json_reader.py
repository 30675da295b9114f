import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.qemu_vmm.json_reader import JsonError, Reader

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def skip(data):
    reader = Reader(data)
    reader.skip()
    reader.end()


def error_of(data, read=Reader.skip):
    reader = Reader(data)
    try:
        read(reader)
        reader.end()
    except JsonError as error:
        return error
    return None


@given(VALUES, st.sampled_from((None, 1)), st.booleans())
def test_all_json_is_taken(value, indent, is_ascii):
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    skip(text.encode(errors="surrogatepass"))


def test_objects_keep_their_keys_sorted_and_the_last_of_each():
    value = Reader(b'{"b":1,"a":[{"d":2,"c":null}],"b":3}').value()
    assert value == {"a": [{"c": None, "d": 2}], "b": 3}
    assert list(value) == ["a", "b"]


@given(st.binary(max_size=60))
def test_reading_and_skipping_agree(data):
    assert str(error_of(data, Reader.value)) == str(error_of(data))


@given(st.text(), st.booleans())
def test_strings_are_read_as_they_were_written(text, is_ascii):
    data = json.dumps(text, ensure_ascii=is_ascii).encode(errors="surrogatepass")
    assert Reader(data).string() == text


@given(st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused_with_a_place(data):
    error = error_of(data)
    if error is None:
        json.loads(data.decode(), strict=True)
    else:
        assert error.line >= 1
        assert 0 <= error.column <= len(data)


@given(VALUES, st.data())
def test_a_cut_document_is_refused(value, data):
    text = json.dumps([value]).encode()
    cut = data.draw(st.integers(min_value=0, max_value=len(text) - 1))
    with pytest.raises(JsonError):
        skip(text[:cut])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "EOF while parsing a value at line 1 column 0"),
        (b"\n\n ", "EOF while parsing a value at line 3 column 1"),
        (b"nul", "EOF while parsing a value at line 1 column 3"),
        (b"nulx", "expected ident at line 1 column 4"),
        (b"[1", "EOF while parsing a list at line 1 column 2"),
        (b"[1,]", "trailing comma at line 1 column 4"),
        (b"[1 2]", "expected `,` or `]` at line 1 column 4"),
        (b'{"a"', "EOF while parsing an object at line 1 column 4"),
        (b'{"a" 1', "expected `:` at line 1 column 6"),
        (b'{"a":1 "b"', "expected `,` or `}` at line 1 column 8"),
        (b"{1", "key must be a string at line 1 column 2"),
        (b'{"a":1,}', "trailing comma at line 1 column 8"),
        (b'"a', "EOF while parsing a string at line 1 column 2"),
        (b'"\\x"', "invalid escape at line 1 column 3"),
        (b'"\\ud800"', "unexpected end of hex escape at line 1 column 8"),
        (b'"\\ud800\\n"', "unexpected end of hex escape at line 1 column 9"),
        (b'"\\ud800\\u0041"', "lone leading surrogate in hex escape at line 1 column 13"),
        (b'"\\udc00"', "lone leading surrogate in hex escape at line 1 column 7"),
        (b'"\\ud800', "EOF while parsing a string at line 1 column 7"),
        (b'"\\u00"', "EOF while parsing a string at line 1 column 6"),
        (b'"\x01"', "control character (\\u0000-\\u001F) found while parsing a string at line 1 "
         "column 2"),
        (b'"\xff"', "invalid unicode code point at line 1 column 3"),
        (b"-", "EOF while parsing a value at line 1 column 1"),
        (b"-x", "invalid number at line 1 column 2"),
        (b"01", "invalid number at line 1 column 2"),
        (b"1.", "EOF while parsing a value at line 1 column 2"),
        (b"1.x", "invalid number at line 1 column 3"),
        (b"1e+", "EOF while parsing a value at line 1 column 3"),
        (b"1ex", "invalid number at line 1 column 3"),
        (b"1e999", "number out of range at line 1 column 5"),
        (b"+1", "expected value at line 1 column 1"),
        (b"[" * 200, "recursion limit exceeded at line 1 column 128"),
    ],
)  # fmt: skip
def test_where_it_goes_wrong(data, text):
    with pytest.raises(JsonError) as caught:
        skip(data)
    assert str(caught.value) == text


def test_integers_beyond_64_bits_are_floats():
    assert Reader(b"18446744073709551615").number() == 2**64 - 1
    assert isinstance(Reader(b"18446744073709551616").number(), float)
    assert isinstance(Reader(b"1" * 300).number(), float)
