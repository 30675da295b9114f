"""The pager and a VMM together: guests that were paused go on, on pages that come when needed."""

import os
import signal
from types import SimpleNamespace

import pytest

from leaks import LeakCheck
from pager_guest import run_directory, until
from vmm_guest import make_initrd
from vmm_server import Server
from vmm_snapshots import (
    MEM_MIB,
    PAGE,
    boot,
    data_pages,
    differing,
    digest,
    overlaid,
    pause,
    restored,
    take,
)
from wrennd.core.deadline import Deadline
from wrennd.host import pagers
from wrennd.host.pagers import Place, Source
from wrennd.pager.keeper import GONE
from wrennd.pager.touched import WorkingSet
from wrennd.snapshot.header import Header

PAGES = (MEM_MIB << 20) // PAGE


@pytest.fixture(scope="module")
def shared_world():
    check = LeakCheck()
    yield
    check.finish()


@pytest.fixture(scope="module")
def frozen(shared_world, kernel, tmp_path_factory):
    """A paused guest, its memory as a header and one file, and what its data are."""
    directory = tmp_path_factory.mktemp("frozen")
    initrd = directory / "initrd.img"
    make_initrd(initrd, kernel.initrd.read_bytes())
    with Server(directory) as server:
        guest = boot(server.wait_for_api(), kernel, initrd)
        data = digest(guest)
        pause(server)
        snapshot = take(guest, directory, name="frozen")
    image = snapshot.memory.read_bytes()
    table = bytes(0 if image.startswith(bytes(PAGE), page * PAGE) else 1 for page in range(PAGES))
    header = Header(("0" * 31 + "1",), table)
    source = Source(header=header.encode(), memfiles=(snapshot.memory,))
    return SimpleNamespace(snapshot=snapshot, image=image, data=data, source=source)


@pytest.fixture
def go_on(frozen, tmp_path):
    """A function: the guest restored, and its pager. As root: the VMM's uid is that of the test."""
    with run_directory() as run_dir:

        def start(touched=None, **changes):
            place = Place(
                run_dir=run_dir,
                uid=os.getuid(),
                **{"dies_with_parent": True, "has_balloon": False} | changes,
            )
            source = Source(
                header=frozen.source.header, memfiles=frozen.source.memfiles, touched=touched
            )
            return Restored(source, place, frozen, tmp_path)

        yield start


class Restored:
    def __init__(self, source, place, frozen, directory):
        self._serving = pagers.serve(source, place)
        handler = SimpleNamespace(path=place.run_dir / "uffd.sock")
        self._restored = restored(directory / "vmm", frozen.snapshot, handler=handler)

    def __enter__(self):
        self.pager = self._serving.__enter__()
        self.pager.wait_ready(Deadline.after(60))
        self.guest = self._restored.__enter__()
        self.pager.watch(self.guest.server.process.pidfd)
        return self.pager, self.guest

    def __exit__(self, *error):
        self._restored.__exit__(*error)
        assert self.pager.process.wait(Deadline.after(60)) is not None, "it ends with its VMM"
        self._serving.__exit__(*error)


def test_a_guest_goes_on_with_what_it_had(frozen, go_on):
    with go_on() as (pager, guest):
        assert digest(guest) == frozen.data
        stats = pager.stats()
        assert 0 < stats.installed < PAGES / 2
        assert stats.touched < stats.installed
    assert pager.process.exit_code == GONE


def test_the_next_snapshot_has_what_was_written_and_nothing_else(frozen, go_on, tmp_path):
    with go_on() as (pager, guest):
        digest(guest)
        guest.run("dd if=/dev/zero of=/data bs=4k count=9 conv=notrunc 2>/dev/null")
        pause(guest.server)
        diff = take(guest, tmp_path, "Diff", "diff")
        assert 9 <= len(data_pages(diff.memory)) < pager.stats().installed / 2
        full = take(guest, tmp_path, "Full", "full")
        merged = overlaid(frozen.image, diff.memory)
        assert differing(merged, full.memory.read_bytes()) == []


def test_a_balloon_that_takes_and_gives_back(frozen, go_on):
    with go_on(has_balloon=True) as (pager, guest):
        guest.server.done("PATCH", "/balloon", {"amount_mib": 24})
        until(lambda: pager.stats().removed * PAGE >= 24 << 20, "a balloon of 24 MiB", 90)
        assert digest(guest) == frozen.data
        guest.server.done("PATCH", "/balloon", {"amount_mib": 0})
        guest.run("dd if=/dev/urandom of=/more bs=64k count=500 2>/dev/null; rm /more", 180)
        assert digest(guest) == frozen.data


def test_a_guest_does_not_notice_that_its_worker_was_replaced(frozen, go_on):
    with go_on(window_pages=1) as (pager, guest):
        for _ in range(2):
            number = guest.tell("md5sum /data")
            os.kill(pager.stats().worker, signal.SIGKILL)
            assert frozen.data in guest.printed(number)
        assert pager.stats().restarts == 2


def test_a_lost_worker_ends_a_vmm_with_a_balloon(frozen, go_on):
    with go_on(has_balloon=True) as (pager, guest):
        os.kill(pager.stats().worker, signal.SIGKILL)
        assert guest.server.process.wait(Deadline.after(60)) == -signal.SIGKILL


def test_what_was_touched_comes_by_itself_the_next_time(frozen, go_on, tmp_path):
    with go_on() as (pager, guest):
        assert digest(guest) == frozen.data
        faults = pager.stats().faults_read
        touched = tmp_path / "touched"
        touched.write_bytes(pager.touched())
        assert WorkingSet.decode(touched.read_bytes(), PAGES).flags.count(1) > 0
    (tmp_path / "vmm").rename(tmp_path / "first")
    with go_on(touched) as (pager, guest):
        assert digest(guest) == frozen.data
        assert pager.stats().prefetched > 0
        assert pager.stats().faults_read < faults
