"""What guests' agents say as JSON: no nesting may bring the process down."""

import pytest

from wrennd.gen.envd.filesystem_pb import EntryInfo, ListDirResponse
from wrennd.host.envd_json import ShallowJson


@pytest.mark.parametrize("piece", ["[", '{"entries":', '{"x":[', '{"entries":[{"x":'])
@pytest.mark.parametrize("depth", [100, 499, 20_000, 1_000_000])
def test_what_is_nested_is_refused(piece, depth):
    with pytest.raises(ValueError, match=r"."):
        ShallowJson().decode((piece * depth).encode(), ListDirResponse)


def test_many_entries_are_not_deep():
    sent = ListDirResponse(entries=[EntryInfo(name=f"a[{n}{{") for n in range(2000)])
    codec = ShallowJson()
    assert codec.decode(codec.encode(sent), ListDirResponse) == sent
