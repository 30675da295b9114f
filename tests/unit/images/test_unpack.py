"""Archives read entry by entry, as the unprivileged child does it, here into a directory."""

import io
import os
import tarfile

import pytest

from wrennd.images import unpack
from wrennd.images.entries import BadTree, TooLarge
from wrennd.images.grow import Tree

MAX_ENTRIES = 1000
MAX_BYTES = 1 << 20


def archive(*members):
    """Pairs of what a header says and the data behind it, in the pax format."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for values, data in members:
            made = tarfile.TarInfo("x")
            made.uid, made.gid, made.size = os.getuid(), os.getgid(), len(data)
            for key, value in values.items():
                setattr(made, key, value)
            tar.addfile(made, io.BytesIO(data))
    return packed.getvalue()


def holes(**headers):
    """Of a file with holes, as GNU tar describes them in the pax format."""
    return {"pax_headers": {f"GNU.sparse.{name}": value for name, value in headers.items()}}


@pytest.fixture
def grow(tmp_path):
    """Unpack an archive; the tree that came of it."""

    def call(data):
        tree = Tree(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY), MAX_BYTES)
        unpack._unpack(io.BufferedReader(io.BytesIO(data)), tree, MAX_ENTRIES)
        tree.finish()
        return tree

    return call


def test_holes_are_where_the_header_says(grow, tmp_path):
    grow(archive((holes(map="2,3,9,1", size="12"), b"abcd")))
    assert (tmp_path / "x").read_bytes() == b"\0\0abc\0\0\0\0d\0\0"


@pytest.mark.parametrize(
    "headers",
    [
        {"map": "a,b"},
        {"map": "1," + "9" * 5000},
        {"map": "0,4", "size": "many"},
        {"map": "0,4", "size": "1" + "0" * 30},
        {"map": "0,4", "size": "3"},
        {"map": "-1,4", "size": "4"},
        {"map": "0,-999999999,0,4", "size": "4"},
        {"major": "1", "minor": "0", "realsize": "4"},
    ],
)
def test_headers_of_holes_that_can_not_be_are_refused(grow, headers):
    with pytest.raises(BadTree):
        grow(archive((holes(**headers), b"abcd")))


def test_directories_that_no_entry_names_are_counted(grow):
    deep = ["/".join(f"{number}-{level}" for level in range(200)) for number in range(8)]
    assert grow(archive(({"name": deep[0]}, b""))).entries == 200
    with pytest.raises(TooLarge, match=f"more than {MAX_ENTRIES} entries"):
        grow(archive(*(({"name": name}, b"") for name in deep)))
