"""Blocks that files share by reflinks, on a filesystem that can."""

import os

import pytest

from small_filesystem import on_loop
from wrennd.linux import files
from wrennd.linux.fiemap import shared_extents_of
from wrennd.storage.shares import weigh

pytestmark = pytest.mark.root
MIB = 1 << 20


def test_clones_share_what_neither_has_written_since(tmp_path, leak_check):
    with on_loop(tmp_path, "xfs", 512) as mount:
        one, two, alone = mount / "one", mount / "two", mount / "alone"
        for path in (one, alone):
            path.write_bytes(os.urandom(4 * MIB))
        with one.open("rb") as source, two.open("wb") as target:
            files.clone(source.fileno(), target.fileno())
        with two.open("r+b") as file:
            file.write(os.urandom(MIB))
            os.fsync(file.fileno())
        os.sync()
        assert sum(end - start for start, end in shared_extents_of(one)) == 3 * MIB
        assert shared_extents_of(alone) == []
        found = weigh({"one": [one], "two": [two], "alone": [alone]})
        together = weigh({"both": [one, two]})["both"]
    assert (found["one"].total_bytes, found["one"].own_bytes) == (4 * MIB, MIB)
    assert (found["two"].total_bytes, found["two"].own_bytes) == (4 * MIB, MIB)
    assert found["alone"].total_bytes == found["alone"].own_bytes == 4 * MIB
    assert together.total_bytes == together.own_bytes == 5 * MIB
