"""A snapshot is there whole or not at all: killed, failing, or without power at any point."""

import errno
import os
from pathlib import Path

import pytest

from small_filesystem import mounted, on_loop
from snapshot_samples import ZERO_PAGE, image, image_of, page_of, pause, take, write_output
from system_calls import names_of, run_and_fail, run_and_kill, watched
from wrennd.core.errors import NoCapacity
from wrennd.linux.files import copy_sparse
from wrennd.snapshot.collapse import collapse
from wrennd.snapshot.reader import exists, open_snapshot
from wrennd.snapshot.store import remove, remove_leftovers, share
from wrennd.snapshot.verify import verify

pytestmark = pytest.mark.root

FIRST = {page: page_of(page) for page in range(40)}
SECOND = {5: ZERO_PAGE, 6: page_of(99), 100: page_of(100)}
OLD = image(FIRST)


def pausing(directory, first):
    return take(directory / "gen-2", directory / "out", parent=first)


def collapsing(directory, first):
    return collapse(first, directory / "gen-2")


def sharing(directory, first):
    return share(first, directory / "gen-2")


NEW = {pausing: image({**FIRST, **SECOND}), collapsing: OLD, sharing: OLD}
WORKS = pytest.mark.parametrize("work", NEW)


@pytest.fixture
def directory(tmp_path):
    """Where gen-1 is, and gen-2 is to be."""
    prepare(tmp_path)
    return tmp_path


@pytest.fixture
def first(directory):
    return open_snapshot(directory / "gen-1")


def prepare(directory):
    """gen-1, and what a VMM left for gen-2."""
    first = pause(directory / "gen-1", FIRST)
    write_output(directory / "out", SECOND)
    return first


def check(directory, work):
    """gen-1 is whole, and gen-2 too if it is there at all. Whether it is."""
    assert verify(directory / "gen-1") == ()
    assert image_of(open_snapshot(directory / "gen-1")) == OLD
    if not (directory / "gen-2").exists():
        return False
    assert exists(directory / "gen-2")
    assert verify(directory / "gen-2") == ()
    assert image_of(open_snapshot(directory / "gen-2")) == NEW[work]
    return True


def there(directory):
    """What the host holds of it: names and descriptors."""
    return sorted(directory.iterdir()), len(list(Path("/proc/self/fd").iterdir()))


def call_names(directory, work):
    names = names_of(work)
    remove(directory / "gen-2")
    assert {"fsync", "rename"} <= set(names)
    return names


@WORKS
def test_killed_before_any_of_its_system_calls(directory, first, work):
    names = call_names(directory, lambda: work(directory, first))
    there = []
    for call in range(len(names)):
        assert run_and_kill(lambda: work(directory, first), call)
        there.append(check(directory, work))
        remove_leftovers(directory)
        remove(directory / "gen-2")
    renamed = len(names) - 1 - names[::-1].index("rename")
    assert there == [call > renamed for call in range(len(names))]
    assert not run_and_kill(lambda: work(directory, first), len(names))
    assert check(directory, work)


@WORKS
def test_after_a_kill_the_next_one_works(directory, first, work):
    names = call_names(directory, lambda: work(directory, first))
    assert run_and_kill(lambda: work(directory, first), names.index("rename"))
    assert (directory / "gen-2.tmp").exists()
    work(directory, first)
    assert check(directory, work)
    assert not (directory / "gen-2.tmp").exists()


@WORKS
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_any_of_its_system_calls_fails(directory, first, work, code):
    names = call_names(directory, lambda: work(directory, first))
    wanted = NoCapacity if code == errno.ENOSPC else OSError
    before = there(directory)
    for call, name in enumerate(names):
        if name == "close" or (name == "stat" and code == errno.ENOSPC):
            continue  # they don't fail like that, and who can't close has a descriptor left
        with pytest.raises(wanted):
            run_and_fail(lambda: work(directory, first), call, OSError(code, os.strerror(code)))
        assert not check(directory, work), f"{name}, call {call}"
        assert there(directory) == before, f"{name}, call {call}"


def test_killed_while_it_is_removed(directory):
    share(open_snapshot(directory / "gen-1"), directory / "gen-2")
    names = names_of(lambda: remove(directory / "gen-2"))
    for call in range(len(names)):
        share(open_snapshot(directory / "gen-1"), directory / "gen-2")
        assert run_and_kill(lambda: remove(directory / "gen-2"), call)
        check(directory, sharing)
        remove(directory / "gen-2")
        remove_leftovers(directory)
        assert check(directory, sharing) is False


@WORKS
def test_the_power_goes(tmp_path, work):
    """The disk as it is before each call that matters, and right after the end, mounted anew."""
    images = []
    with on_loop(tmp_path, "ext4", 24) as mount:
        first = prepare(mount)
        os.sync()

        def look(name="the end"):
            if name not in ("fsync", "rename", "mkdir", "link", "rmdir", "the end"):
                return
            images.append((name, tmp_path / f"{len(images)}.img"))
            with (tmp_path / "ext4.img").open("rb") as now, images[-1][1].open("wb") as then:
                copy_sparse(now.fileno(), then.fileno())

        with watched(look):
            work(mount, first)
        look()
    there = []
    for _, path in images:
        with mounted(path, tmp_path / "after") as mount:
            there.append(check(mount, work))
            remove_leftovers(mount)
            assert not (mount / "gen-2.tmp").exists()
        path.unlink()
    assert there[-1], "it was committed"
    assert not there[0]
    assert there == sorted(there)
