"""When a sandbox on a dm disk is stopped."""

import pytest

from wrennd.host.disk_watch import RESERVE_BYTES, trouble, unwritten_bytes
from wrennd.storage.overlay import Status

GIB = 1 << 30
MEMINFO = "MemTotal: 9 kB\nDirty:      12 kB\nWriteback:   4 kB\nWritebackTmp: 9 kB\n"


def status(free, lost=""):
    return Status(size_bytes=4 * GIB, used_bytes=GIB, free_bytes=free, lost=lost)


def test_there_is_room():
    assert trouble(status(GIB), 100 << 20) == ""
    assert trouble(status(RESERVE_BYTES), 0) == ""


@pytest.mark.parametrize(("free", "unwritten"), [(RESERVE_BYTES - 1, 0), (GIB, GIB), (0, 0)])
def test_what_is_not_written_yet_needs_room_too(free, unwritten):
    assert "almost full" in trouble(status(free), unwritten)


def test_a_lost_disk_is_said_first():
    assert trouble(status(0, lost="Invalid"), 0) == "its disk is lost: Invalid"


def test_what_the_host_has_not_written_yet():
    assert unwritten_bytes(MEMINFO) == 16 << 10
    assert unwritten_bytes("") == 0
