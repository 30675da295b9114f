"""What `wrenn snapshot show` tells."""

from datetime import datetime, timedelta

from snapshot_samples import PAGES, ZERO_PAGE, page_of, pause
from wrennd.snapshot.description import describe
from wrennd.snapshot.store import remove, share


def test_a_chain_row_by_row(tmp_path):
    first = pause(tmp_path / "gen-1", {page: page_of(page) for page in range(10)})
    second = pause(tmp_path / "gen-2", {1: page_of(50), 2: ZERO_PAGE, 11: page_of(1)}, parent=first)
    third = pause(tmp_path / "gen-3", {}, parent=second)
    made = datetime.fromisoformat(third.manifest.generations[0].created)
    told = describe(third, made + timedelta(seconds=90))
    assert [(row.pages, row.stored_pages, row.zero_pages) for row in told.rows] == [
        (8, 10, 0),
        (2, 2, 1),
        (0, 0, 0),
    ]
    assert [row.disk_bytes for row in told.rows] == [10 * 4096, 2 * 4096, 0]
    assert [row.shared_by for row in told.rows] == [2, 1, 0]
    assert told.rows[0].age_s == 90
    assert (told.pages, told.zero_pages) == (PAGES, PAGES - 10)


def test_own_bytes_are_what_removing_it_frees(tmp_path):
    first = pause(tmp_path / "gen-1", {page: page_of(page) for page in range(10)})
    now = datetime.fromisoformat(first.manifest.created)
    alone = describe(first, now)
    assert alone.own_bytes == alone.disk_bytes >= 10 * 4096 + 20000
    shared = share(first, tmp_path / "template")
    assert describe(shared, now).own_bytes == 0
    assert describe(shared, now).disk_bytes == alone.disk_bytes
    remove(first.directory)
    assert describe(shared, now).own_bytes == alone.disk_bytes
