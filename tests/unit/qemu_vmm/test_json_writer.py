import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.qemu_vmm.json_reader import Reader
from wrennd.qemu_vmm.json_writer import float_text, to_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(1 << 63), max_value=(1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read_again(value):
    data = to_json(value)
    assert json.loads(data) == value
    reader = Reader(data)
    assert reader.value() == value
    reader.end()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e+16"),
        (1.25e-5, "0.0000125"),
        (1e-6, "1e-6"),
        (5e-324, "5e-324"),
        (1.5e300, "1.5e+300"),
    ],
)
def test_floats(value, text):
    assert float_text(value) == text


def test_text_is_escaped_where_it_must_be():
    assert to_json({"é\x01": '"\\/\n'}) == '{"é\\u0001":"\\"\\\\/\\n"}'.encode()
