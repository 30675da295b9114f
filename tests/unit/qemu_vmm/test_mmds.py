import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.qemu_vmm.faults import Fault, TooLarge
from wrennd.qemu_vmm.json_writer import to_json
from wrennd.qemu_vmm.mmds import MMDS_CONFIG, DataStore, merged, refuse_to_serve
from wrennd.qemu_vmm.schema import decode

KEYS = st.sampled_from(("a", "b", "c"))
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        # the examples of RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"a": 1, "e": None}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches(target, patch, result):
    before = to_json(target), to_json(patch)
    assert merged(target, patch) == result
    assert (to_json(target), to_json(patch)) == before


@given(VALUES, VALUES)
def test_a_merge_holds_for_good(target, patch):
    once = merged(target, patch)
    assert merged(once, patch) == once


def test_the_store():
    store = DataStore(limit=10)
    assert store.get() == {}
    with pytest.raises(Fault, match="not initialized"):
        store.patch({})
    store.put({"a": 1234})
    with pytest.raises(TooLarge) as caught:
        store.patch({"b": 1})
    assert caught.value.status == 413
    assert store.get() == {"a": 1234}
    store.patch({"a": None})
    assert store.get() == {}
    store.put(None)
    assert store.get() == {}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b'{"network_interfaces":[],"ipv4_address":"10.0.0.1"}', "not link local"),
        (b'{"network_interfaces":[],"ipv4_address":"169.254.255.1"}', "not link local"),
        (b'{"network_interfaces":[],"ipv4_address":"169.254.1.1"}', "is empty"),
        (b'{"network_interfaces":["a","b"]}', "at least one ID"),
        (b'{"network_interfaces":["a"]}', "serving mmds to the guest is not supported"),
    ],
)
def test_serving_is_always_refused(body, fault):
    with pytest.raises(Fault, match=fault):
        refuse_to_serve(decode(MMDS_CONFIG, body), ["a"])
