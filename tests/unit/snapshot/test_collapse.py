"""Chains over many pauses: the image is the guest's, and a collapse changes no page of it."""

import os
import random

import pytest

from snapshot_samples import FACTS, PAGES, ZERO_PAGE, image, image_of, page_of, pause
from wrennd.core.errors import AlreadyExists
from wrennd.snapshot.collapse import MAX_INCREMENTAL, collapse, is_due
from wrennd.snapshot.header import Header
from wrennd.snapshot.reader import open_snapshot
from wrennd.snapshot.store import remove
from wrennd.snapshot.verify import verify


def some_writes(chance, memory):
    """Pages rewritten, zeroed, and written again as they were; the rest is untouched."""
    written = {}
    for page in chance.sample(range(PAGES), chance.randint(0, 60)):
        kind = chance.randrange(4)
        written[page] = (page_of(chance.randrange(1000)), ZERO_PAGE, memory[page],
                         page_of(page))[kind]  # fmt: skip
    return written


def test_25_pauses_and_two_collapses(tmp_path):
    chance = random.Random(4)
    memory = [ZERO_PAGE] * PAGES
    newest, number, collapses = None, 0, 0
    for _ in range(25):
        written = some_writes(chance, memory)
        memory = [written.get(page, old) for page, old in enumerate(memory)]
        number += 1
        before, newest = newest, pause(tmp_path / f"gen-{number}", written, parent=newest)
        if before:
            remove(before.directory)
        if is_due(newest.manifest):
            assert len(newest.manifest.generations) == 2 + MAX_INCREMENTAL
            number += 1
            before, newest = newest, collapse(newest, tmp_path / f"gen-{number}")
            remove(before.directory)
            collapses += 1
            assert len(newest.header.builds) == len(newest.manifest.generations) == 1
        newest = open_snapshot(newest.directory)
        assert image_of(newest) == memory
        assert verify(newest.directory) == ()
    assert collapses == 2
    assert [path.name for path in tmp_path.glob("gen-*") if not path.suffix] == [f"gen-{number}"]


@pytest.fixture
def chain(tmp_path):
    """Three generations, with pages hidden and pages zeroed."""
    one = pause(tmp_path / "gen-1", {0: page_of(1), 1: page_of(2), 2: page_of(3), 9: page_of(4)})
    two = pause(tmp_path / "gen-2", {1: page_of(5), 2: ZERO_PAGE}, parent=one)
    return pause(tmp_path / "gen-3", {100: page_of(6), 255: page_of(7)}, parent=two)


def test_a_collapse_keeps_everything_but_the_chain(tmp_path, chain):
    merged = collapse(chain, tmp_path / "gen-4")
    assert image_of(merged) == image_of(chain)
    for name in ("state", "rootfs.ext4", "token", "sums"):
        assert (merged.directory / name).samefile(chain.directory / name)
    assert merged.manifest.facts == FACTS
    (generation,) = merged.manifest.generations
    assert (generation.data_pages, generation.zero_pages) == (5, 0)
    assert merged.header.builds == (generation.build,)
    assert verify(chain.directory) == ()
    remove(chain.directory)
    assert verify(merged.directory) == ()


def test_the_merged_file_is_a_raw_image_with_holes(tmp_path, chain):
    merged = collapse(chain, tmp_path / "gen-4")
    (memfile,) = merged.memfiles
    assert memfile.read_bytes() == b"".join(image_of(chain))
    assert memfile.stat().st_blocks * 512 <= 5 * 4096
    assert memfile.stat().st_mode & 0o777 == 0o444


def test_damage_is_not_laundered(tmp_path, chain):
    path = chain.memfiles[0]
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(b"x")
    merged = collapse(chain, tmp_path / "gen-4")
    (problem,) = verify(merged.directory)
    assert problem.file == f"{merged.memfiles[0].name}, page 0 at 0"


def test_a_memory_file_that_is_too_short_now(tmp_path, chain):
    os.truncate(chain.memfiles[-1], 4096)
    with pytest.raises(OSError, match="became shorter"):
        collapse(chain, tmp_path / "gen-4")
    assert not list(tmp_path.glob("gen-4*"))


def test_a_guest_of_zeros(tmp_path):
    empty = pause(tmp_path / "gen-1", {})
    assert collapse(empty, tmp_path / "gen-2").header == Header.zero(PAGES)


def test_a_single_file_becomes_a_chain(tmp_path):
    single = pause(tmp_path / "gen-1", {3: page_of(3)}, whole=True)
    assert image_of(collapse(single, tmp_path / "gen-2")) == image({3: page_of(3)})


def test_there_must_be_room_for_the_name(tmp_path, chain):
    with pytest.raises(AlreadyExists):
        collapse(chain, chain.directory)
    assert verify(chain.directory) == ()
