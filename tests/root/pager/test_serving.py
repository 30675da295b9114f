"""Right pages, whatever is touched, written, given up and prefetched, by many threads at once."""

import pytest

from pager_guest import (
    Guest,
    make_snapshot,
    page_content,
    place,
    random_table,
    run_directory,
    until,
)
from wrennd.core.deadline import Deadline
from wrennd.host import pagers
from wrennd.pager.touched import WorkingSet

PAGES = 6000
GIB_PAGES = 1 << 18
# Of every third window, those which are the second of eight: 9, 33, 57, 81 (the first recording is
# turn 0, on an empty set).
ON_TRIAL = 4


@pytest.fixture
def snapshot(tmp_path):
    return make_snapshot(tmp_path, random_table(PAGES, builds=7, seed=3))


def test_every_page_is_what_the_snapshot_says(program, run_dir, snapshot):
    with (
        pagers.serve(snapshot.source(), place(run_dir)) as pager,
        Guest(program, run_dir, snapshot.image, [PAGES]) as guest,
    ):
        assert guest.hear() == "greeted"
        assert guest.ask("check") == "ok"
        stats = pager.stats()
        assert (stats.state, stats.installed) == ("serving", PAGES)
        # Touched in order, each window faults once for each run in it.
        assert stats.touched == stats.faults_read < PAGES / 10


@pytest.mark.parametrize("window", [1, 16, 64])
@pytest.mark.parametrize("prefetches", [False, True])
@pytest.mark.parametrize("wp", [False, True])
def test_many_threads_touch_write_and_give_up(
    program, run_dir, snapshot, tmp_path, window, prefetches, wp
):
    touched = tmp_path / "touched"
    if prefetches:
        touched.write_bytes(recorded(program, snapshot))
    with (
        pagers.serve(
            snapshot.source(touched), place(run_dir, window_pages=window, has_balloon=True)
        ) as pager,
        Guest(program, run_dir, snapshot.image, [PAGES], wp=wp) as guest,
    ):
        assert guest.hear() == "greeted"
        assert guest.ask(f"stress 4 9600 {window + 1} 20") == "ok"
        assert guest.ask("check") == "ok"
        until(lambda: pending(pager) == 0, "an answer to every fault")
        stats = pager.stats()
        assert stats.removals > 1000
        assert stats.faults_read > 1000
        assert (stats.prefetched > 0) == prefetches


def pending(pager):
    stats = pager.stats()
    return stats.faults_read - stats.faults_answered


def recorded(program, snapshot):
    """The working set of a guest that read every third window of 64 pages."""
    with (
        run_directory() as run_dir,
        pagers.serve(snapshot.source(), place(run_dir, window_pages=1)) as pager,
        Guest(program, run_dir, snapshot.image, [PAGES]) as guest,
    ):
        assert guest.hear() == "greeted"
        for first in range(0, PAGES - 64, 192):
            assert guest.ask(f"read {first} 64") == "ok"
        return pager.touched()


def test_what_was_touched_is_prefetched_next_time(program, run_dir, snapshot, tmp_path):
    touched = tmp_path / "touched"
    touched.write_bytes(recorded(program, snapshot))
    with (
        pagers.serve(snapshot.source(touched), place(run_dir, window_pages=1)) as pager,
        Guest(program, run_dir, snapshot.image, [PAGES]) as guest,
    ):
        assert guest.hear() == "greeted"
        before = WorkingSet.decode(touched.read_bytes(), PAGES)
        wanted = before.flags.count(1) - 64 * ON_TRIAL
        until(lambda: pager.stats().prefetched >= wanted, "prefetching")
        for first in range(0, PAGES - 64, 192):
            assert guest.ask(f"read {first} 64") == "ok"
        # One window in eight had to prove itself, page by page: it was needed.
        assert pager.stats().faults_read == 64 * ON_TRIAL
        assert WorkingSet.decode(pager.touched(), PAGES) == WorkingSet(before.flags, 2)


@pytest.mark.parametrize("data", [b"", b"WRNTOUCH", bytes(782), b"x" * 782])
def test_a_damaged_recording_is_not_used(program, run_dir, snapshot, tmp_path, data):
    touched = tmp_path / "touched"
    touched.write_bytes(data)
    with (
        pagers.serve(snapshot.source(touched), place(run_dir)) as pager,
        Guest(program, run_dir, snapshot.image, [PAGES]) as guest,
    ):
        assert guest.hear() == "greeted"
        assert guest.ask("read 0 100") == "ok"
        assert pager.stats().prefetched == 0
        assert "the recorded working set is not used" in pager.describe_end()


@pytest.mark.parametrize("regions", [[1, PAGES - 1], [100] * 60, [3000, 1, 2999]])
def test_many_regions(program, run_dir, snapshot, regions):
    with (
        pagers.serve(snapshot.source(), place(run_dir, has_balloon=True)),
        Guest(program, run_dir, snapshot.image, regions) as guest,
    ):
        assert guest.hear() == "greeted"
        assert guest.ask("stress 3 3000 5 10") == "ok"
        assert guest.ask("check") == "ok"


def test_a_guest_of_4_gib(program, run_dir, tmp_path):
    """Two regions as Firecracker makes them above 3 GiB; offsets that need more than 32 bits."""
    runs = [(0, 10), (3 * GIB_PAGES - 70, 140), (4 * GIB_PAGES - 65, 65)]
    table = bytearray(4 * GIB_PAGES)
    for first, count in runs:
        table[first : first + count] = b"\1" * (count // 2) + b"\2" * (count - count // 2)
    pages = [page for first, count in runs for page in range(first, first + count)]
    snapshot = make_snapshot(tmp_path, bytes(table), only=pages)
    with (
        pagers.serve(snapshot.source(), place(run_dir)) as pager,
        Guest(program, run_dir, snapshot.image, [3 * GIB_PAGES, GIB_PAGES]) as guest,
    ):
        assert guest.hear() == "greeted"
        for first, count in runs:
            assert guest.ask(f"read {max(first - 3, 0)} {count}") == "ok"
            assert guest.ask(f"read {first + count - 3} 3") == "ok"
        assert guest.ask(f"read {2 * GIB_PAGES} 100") == "ok"
        assert len(pager.touched()) == 32 + 4 * GIB_PAGES // 8


def test_under_write_protection_only_writes_count(program, run_dir, tmp_path):
    """What a snapshot will take: pages written, and removed ones that hid something."""
    snapshot = make_snapshot(tmp_path, b"\0" * 64 + b"\1" * 64 + b"\2" * 64)
    with (
        pagers.serve(snapshot.source(), place(run_dir, has_balloon=True)),
        Guest(program, run_dir, snapshot.image, [192], wp=True) as guest,
    ):
        assert guest.hear() == "greeted"
        assert guest.ask("check") == "ok"
        assert guest.ask("dirty") == "dirty"
        for order in ("write 5 1", "write 70 2", "remove 10 1", "remove 100 1", "read 10 1"):
            assert guest.ask(order) == "ok"
        assert guest.ask("dirty") == "dirty 5 70 71"
        assert guest.ask("read 100 1") == "ok"
        assert guest.ask("dirty") == "dirty 5 70 71 100"


def test_page_content_tells_pages_and_sources_apart():
    contents = {page_content(source, page) for source in range(1, 9) for page in range(100)}
    assert len(contents) == 800


def test_ready_comes_before_serving(program, run_dir, snapshot):
    with pagers.serve(snapshot.source(), place(run_dir)) as pager:
        pager.wait_ready(Deadline.after(30))
        assert pager.stats().state == "ready"
        with Guest(program, run_dir, snapshot.image, [PAGES]) as guest:
            pager.wait_serving(Deadline.after(30))
            assert pager.stats().state == "serving"
            assert guest.hear() == "greeted"
