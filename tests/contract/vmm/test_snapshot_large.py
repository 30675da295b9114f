"""A guest of 3.5 GiB: memory has a hole at 3 GiB, its file has none, and there are two regions."""

import mmap
import os

import pytest

from page_handler import PAGE, PageHandler
from vmm_server import Server
from vmm_snapshots import (
    boot,
    data_pages,
    digest,
    pause,
    restored,
    take,
)
from wrennd.linux import files, process

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.long]

MEM_MIB = 3584
LOW = 3 << 30


@pytest.fixture
def room(tmp_path):
    """Files of the guest's size, sparse."""
    yield tmp_path
    for path in tmp_path.glob("*.memory"):
        path.unlink()


def merge(diff, base):
    """Into `base`, whose length it has."""
    with diff.open("rb") as source, base.open("r+b") as target:
        for start, end in files.data_runs(source.fileno(), MEM_MIB << 20):
            os.pwrite(target.fileno(), os.pread(source.fileno(), end - start, start), start)


def test_a_guest_with_two_regions(leak_check, kernel, test_initrd, room):
    (room / "first").mkdir()
    with Server(room / "first") as server:
        server.wait_for_api()
        guest = boot(server, kernel, test_initrd, mem_size_mib=MEM_MIB)
        # More than is free below the hole can't be missed to lie on both sides of it.
        guest.run("dd if=/dev/urandom of=/more bs=64k count=320 2>/dev/null")
        data = digest(guest), guest.run("md5sum /more")
        pause(server)
        first = take(guest, room, "Diff", "first")
    assert first.memory.stat().st_size == MEM_MIB << 20
    assert {page * PAGE >= LOW for page in data_pages(first.memory)} == {True, False}
    with (
        first.memory.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image,
        PageHandler(room / "uffd.sock", image) as handler,
        restored(room / "second", first, handler=handler) as guest,
    ):
        low, high = handler.mappings
        assert (low["offset"], low["size"]) == (0, LOW)
        assert (high["offset"], high["size"]) == (LOW, (MEM_MIB << 20) - LOW)
        assert (digest(guest), guest.run("md5sum /more")) == data
        for name in ("/data", "/more"):
            change = f"dd if=/dev/urandom of={name} bs=4k count=30 seek=7 conv=notrunc"
            guest.run(f"{change} 2>/dev/null")
        data = digest(guest), guest.run("md5sum /more")
        pause(guest.server)
        second = take(guest, room, "Diff", "second")
    merge(second.memory, first.memory)
    with restored(room / "third", second.with_memory(first.memory)) as guest:
        pause(guest.server)
        full = take(guest, room, "Full", "full")
        guest.server.done("PATCH", "/vm", {"state": "Resumed"})
        assert (digest(guest), guest.run("md5sum /more")) == data
        pause(guest.server)
        third = take(guest, room, "Diff", "third")
        again = take(guest, room, "Full", "again")
    merge(third.memory, full.memory)
    process.run(["cmp", full.memory, again.memory], timeout_s=120)
