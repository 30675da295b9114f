"""Walking and removing, where a test needs to see what happens between two steps."""

import os
from pathlib import Path

import pytest

from wrennd.envd import tree


def test_a_directory_that_cannot_be_opened_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(tree.walk(os.fspath(tmp_path / "no"), 1))


def test_what_goes_during_a_walk_is_left_out(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    walk = tree.walk(os.fspath(tmp_path), 9)
    assert next(walk) == "a"
    (tmp_path / "a" / "b").rmdir()
    (tmp_path / "a").rmdir()
    assert list(walk) == []


def test_a_directory_swapped_for_a_link_is_not_followed(tmp_path):
    doomed, kept = tmp_path / "doomed", tmp_path / "kept"
    (doomed / "sub").mkdir(parents=True)
    (doomed / "sub" / "x").touch()
    kept.mkdir()
    (kept / "x").touch()
    steps = tree.remove(os.fspath(doomed))
    next(steps)
    (doomed / "sub").rename(tmp_path / "aside")
    (doomed / "sub").symlink_to(kept)
    with pytest.raises(OSError, match="moved meanwhile"):
        list(steps)
    assert (kept / "x").exists()


def test_a_removal_that_is_given_up_closes_its_descriptors(tmp_path):
    (tmp_path / "d" / "e").mkdir(parents=True)
    before = list(Path("/proc/self/fd").iterdir())
    steps = tree.remove(os.fspath(tmp_path / "d"))
    next(steps)
    steps.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)
