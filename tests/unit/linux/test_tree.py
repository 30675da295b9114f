"""A tree is written below its directory and nowhere else."""

import os
import stat

import pytest

from wrennd.linux.tree import Tree, UnsafePath


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def tree(root):
    with Tree(root) as opened:
        yield opened


def test_directories_files_and_links(root, tree):
    tree.make_directory(b".", 0o755)
    tree.make_directory(b"./d", 0o2550)
    tree.write_file(b"./d/f", 0o4751, [b"on", b"e"])
    tree.make_symlink(b"l", b"d/f")
    tree.make_link(b"h", b"d/f")
    tree.finish()
    assert (root / "l").read_text() == "one"
    assert (root / "h").stat().st_ino == (root / "d/f").stat().st_ino
    assert stat.S_IMODE((root / "d/f").stat().st_mode) == 0o751
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o550
    assert stat.S_IMODE(root.stat().st_mode) == 0o755


@pytest.mark.parametrize("path", [b"../x", b"a/../../x", b"/x", b"x\0y", b"..", b"", b"./."])
def test_paths_that_lead_out_are_refused(root, tree, path):
    with pytest.raises(UnsafePath):
        tree.write_file(path, 0o644, [b""])
    with pytest.raises(UnsafePath):
        tree.make_symlink(path, b"t")
    with pytest.raises(UnsafePath):
        tree.make_link(b"n", path)
    assert list(root.parent.iterdir()) == [root]


def test_a_link_of_the_tree_itself_is_never_followed(tmp_path, root, tree):
    outside = tmp_path / "outside"
    outside.mkdir()
    tree.make_symlink(b"l", os.fsencode(outside))
    tree.make_symlink(b"d", b".")
    for path in (b"l/x", b"d/x"):
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            tree.write_file(path, 0o644, [b"out"])
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            tree.make_directory(path, 0o755)
    with pytest.raises(FileExistsError):
        tree.write_file(b"l", 0o644, [b"over"])
    assert list(outside.iterdir()) == []


def test_a_second_name_for_a_link_is_for_the_link_itself(tmp_path, root, tree):
    secret = tmp_path / "secret"
    secret.write_text("s")
    tree.make_symlink(b"l", os.fsencode(secret))
    tree.make_link(b"h", b"l")
    assert (root / "h").is_symlink()
    assert secret.stat().st_nlink == 1


def test_a_directory_that_became_a_link_gets_no_mode(tmp_path, root, tree):
    tree.make_directory(b"d", 0o777)
    (root / "d").rmdir()
    (root / "d").symlink_to(tmp_path)
    before = tmp_path.stat().st_mode
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        tree.finish()
    assert tmp_path.stat().st_mode == before


def test_closing_twice(root):
    tree = Tree(root)
    tree.close()
    tree.close()
