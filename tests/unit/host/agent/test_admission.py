"""Room is taken before anything is made, once, and is there again afterwards."""

import pytest

from wrennd.core.errors import NoCapacity
from wrennd.core.states import State
from wrennd.host.agent.admission import FLOOR_BYTES, MIB, Admission, Room, room_for
from wrennd.host.agent.catalogue import Catalogue
from wrennd.host.capacity import VMM_OVERHEAD_MIB, total_mib
from wrennd.host.record import Journal, Owner, Record
from wrennd.storage.layout import Layout

SMALL = Room(mem_mib=1, pause_bytes=MIB, vcpus=1)


@pytest.fixture
def layout(tmp_path):
    return Layout.prepare(tmp_path / "data")


@pytest.fixture
def admission(layout):
    return Admission(layout, Catalogue(layout), 1.0)


def keep(layout, sandbox_id, state, mem_mib):
    paths = layout.sandbox(sandbox_id)
    paths.data.mkdir()
    found = Record(
        id=sandbox_id,
        owner=Owner.INSTALLATION,
        state=state,
        template="base",
        vcpus=2,
        mem_mib=mem_mib,
        overlay="reflink",
    )
    Journal(paths, found).update()


def test_what_runs_counts_and_what_is_paused_does_not(layout, admission):
    keep(layout, "a" * 20, State.RUNNING, 100)
    keep(layout, "b" * 20, State.PAUSED, 1000)
    used = admission.used()
    assert used.mem_mib_reserved == 100 + VMM_OVERHEAD_MIB
    assert used.disk_bytes_reserved == FLOOR_BYTES + 200 * MIB
    assert used.vcpus_given == 2


def test_what_is_being_made_counts_once(layout, admission):
    sandbox_id = "a" * 20
    with admission.reserved(sandbox_id, room_for(100, 1, disk=None, overlay="reflink")):
        assert admission.used().mem_mib_reserved == 100 + VMM_OVERHEAD_MIB
        keep(layout, sandbox_id, State.STARTING, 100)
        assert admission.used().mem_mib_reserved == 100 + VMM_OVERHEAD_MIB
    assert admission.used().mem_mib_reserved == 100 + VMM_OVERHEAD_MIB


def test_room_that_failed_to_be_used_is_there_again(admission):
    with pytest.raises(LookupError), admission.reserved("a" * 20, SMALL):
        raise LookupError
    assert admission.used().mem_mib_reserved == 0


def test_more_memory_than_there_is_is_refused_with_figures(layout, admission):
    keep(layout, "a" * 20, State.RUNNING, total_mib() - VMM_OVERHEAD_MIB)
    with pytest.raises(NoCapacity, match=f"{total_mib()} of {total_mib()} MiB"):
        admission.reserved("b" * 20, SMALL).__enter__()
    assert admission.used().mem_mib_reserved == total_mib()


def test_memory_that_is_promised_is_not_promised_again(layout):
    """Beyond the host's own by overcommitting; what is available binds all the same."""
    admission = Admission(layout, Catalogue(layout), 100.0)
    most = Room(mem_mib=total_mib(), pause_bytes=0)
    with pytest.raises(NoCapacity, match="available"):
        admission.reserved("a" * 20, most).__enter__()


def test_the_disk_keeps_room_for_pauses(layout, admission):
    used = admission.used()
    free = used.disk_bytes_free
    keep(layout, "a" * 20, State.RUNNING, (free // MIB) // 2)
    with pytest.raises(NoCapacity, match="kept for pauses"):
        admission.check_disk("b" * 20, MIB, "a snapshot")
    admission.check_disk("a" * 20, MIB, "its own pause")


def test_a_copied_disk_is_written_by_a_pause(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB))
    assert room_for(10, 1, disk=disk, overlay="copy").pause_bytes >= 21 * MIB
    assert room_for(10, 1, disk=disk, overlay="reflink").pause_bytes == 20 * MIB
