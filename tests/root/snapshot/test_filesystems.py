"""Snapshots on other filesystems than the tests' own, and on full ones."""

import os
import random

import pytest

from small_filesystem import on_loop, tmpfs
from snapshot_samples import (
    PAGES,
    ZERO_PAGE,
    image,
    image_of,
    page_of,
    pause,
    take,
    write_diff,
)
from wrennd.core.errors import NoCapacity
from wrennd.linux.files import has_exact_holes
from wrennd.snapshot.collapse import collapse
from wrennd.snapshot.store import remove, share
from wrennd.snapshot.verify import verify

pytestmark = pytest.mark.root


@pytest.mark.parametrize("kind", ["xfs", "ext4-1k", "tmpfs"])
def test_a_chain_and_its_collapse(tmp_path, kind):
    chance = random.Random(kind)
    manager = (
        tmpfs(tmp_path / "mount", 64 << 10) if kind == "tmpfs" else on_loop(tmp_path, kind, 400)
    )
    with manager as mount:
        memory, newest = [ZERO_PAGE] * PAGES, None
        for number in range(4):
            written = {
                page: chance.choice([ZERO_PAGE, page_of(number), memory[page]])
                for page in chance.sample(range(PAGES), 80)
            }
            memory = [written.get(page, old) for page, old in enumerate(memory)]
            newest = pause(mount / f"gen-{number}", written, parent=newest)
            assert image_of(newest) == memory
        merged = collapse(newest, mount / "gen-9")
        assert image_of(merged) == memory
        assert verify(merged.directory) == ()
        assert merged.memfiles[0].read_bytes() == b"".join(memory)


@pytest.mark.parametrize("kind", ["xfs", "ext4-1k", "ext4", "tmpfs"])
def test_holes_are_known_page_by_page(tmp_path, kind):
    manager = (
        tmpfs(tmp_path / "mount", 64 << 10) if kind == "tmpfs" else on_loop(tmp_path, kind, 400)
    )
    with manager as mount:
        assert has_exact_holes(mount)
        assert list(mount.iterdir()) in ([], [mount / "lost+found"])


def test_holes_of_huge_pages_are_not(tmp_path):
    with tmpfs(tmp_path / "mount", 64 << 10, huge="always") as mount:
        assert not has_exact_holes(mount)


@pytest.fixture
def out(tmp_path):
    """What a VMM wrote: a guest that used 600 KiB."""
    path = tmp_path / "out"
    path.mkdir()
    (path / "state").write_bytes(b"s" * 9000)
    write_diff(path / "memory", {page: page_of(page) for page in range(150)})
    return path


def used(mount):
    found = os.statvfs(mount)
    return found.f_blocks - found.f_bfree


@pytest.mark.parametrize("size_kib", [4, 12, 16, 64, 400, 600, 612, 616, 620, 624, 628, 632, 636])
def test_a_full_disk_says_so_and_keeps_nothing(tmp_path, out, size_kib):
    with tmpfs(tmp_path / "mount", size_kib) as mount:
        before = used(mount)
        with pytest.raises(NoCapacity, match=f"the filesystem of {mount} is full"):
            take(mount / "gen-1", out)
        assert list(mount.iterdir()) == []
        assert used(mount) == before


def test_there_is_room_for_the_first_and_none_for_the_second(tmp_path, out):
    with tmpfs(tmp_path / "mount", 900) as mount:
        first = take(mount / "gen-1", out)
        write_diff(out / "memory", {page: page_of(page + 7) for page in range(150)})
        before = used(mount)
        with pytest.raises(NoCapacity):
            take(mount / "gen-2", out, parent=first)
        with pytest.raises(NoCapacity):
            collapse(first, mount / "gen-2")
        assert [path.name for path in mount.iterdir()] == ["gen-1"]
        assert used(mount) == before
        assert verify(first.directory) == ()
        small = write_diff(out / "memory", {1: page_of(70)})
        assert small.exists()
        assert image_of(take(mount / "gen-2", out, parent=first))[1] == page_of(70)


def test_sharing_with_another_filesystem_copies(tmp_path):
    written = {3: page_of(3), 200: page_of(4)}
    original = pause(tmp_path / "gen-1", written)
    with tmpfs(tmp_path / "mount", 4 << 10) as mount:
        copied = share(original, mount / "template")
        assert copied.disk.stat().st_nlink == 1
        assert copied.memfiles[0].stat().st_blocks * 512 == 2 * 4096
        assert copied.memfiles[0].stat().st_mode & 0o777 == 0o444
        remove(original.directory)
        assert image_of(copied) == image(written)
        assert verify(copied.directory) == ()
