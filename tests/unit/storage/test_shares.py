"""What things take, what is theirs alone, and what they share."""

import os
from collections import Counter

from wrennd.storage import shares
from wrennd.storage.shares import weigh

KIB = 1024


def written(path, size=64 * KIB):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(os.urandom(size))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path


def own(*paths):
    return sum(path.lstat().st_blocks * 512 for path in paths)


def test_hard_links_between_things_are_shared(tmp_path):
    shared = written(tmp_path / "a" / "shared")
    alone = written(tmp_path / "a" / "alone")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "other").hardlink_to(shared)
    found = weigh({"a": [tmp_path / "a"], "b": [tmp_path / "b"]})
    assert found["a"].total_bytes == own(tmp_path / "a", shared, alone)
    assert found["a"].own_bytes == own(tmp_path / "a", alone)
    assert found["b"].total_bytes == own(tmp_path / "b", shared)
    assert found["b"].own_bytes == own(tmp_path / "b")


def test_hard_links_within_a_thing_are_its_own_and_count_once(tmp_path):
    one = written(tmp_path / "a" / "one")
    (tmp_path / "a" / "two").hardlink_to(one)
    found = weigh({"a": [tmp_path / "a"]})["a"]
    assert found.total_bytes == found.own_bytes == own(tmp_path / "a", one)


def test_what_is_linked_from_elsewhere_is_nobody_s_own(tmp_path):
    one = written(tmp_path / "a" / "one")
    (tmp_path / "elsewhere").hardlink_to(one)
    found = weigh({"a": [tmp_path / "a"]})["a"]
    assert found.total_bytes == own(tmp_path / "a", one)
    assert found.own_bytes == own(tmp_path / "a")


def test_a_thing_in_a_thing_shares_all_of_it(tmp_path):
    inner = written(tmp_path / "a" / "file")
    found = weigh({"all": [tmp_path / "a"], "file": [inner]})
    assert found["all"].own_bytes == own(tmp_path / "a")
    assert found["file"].total_bytes == own(inner)
    assert found["file"].own_bytes == 0


def test_a_path_given_twice_counts_once(tmp_path):
    one = written(tmp_path / "one")
    assert weigh({"a": [one, one]})["a"].own_bytes == own(one)


def test_what_is_not_there_takes_nothing(tmp_path):
    found = weigh({"a": [tmp_path / "none"], "b": []})
    assert found["a"].total_bytes == found["b"].total_bytes == 0


def inode(tmp_path, *things):
    return shares._Inode(blocks_bytes=0, names=1, path=tmp_path, is_file=True, seen=Counter(things))


def swept(ranges):
    total, mine = Counter(), Counter()
    shares._sweep(ranges, total, mine)
    return total, mine


def test_extents_count_once_for_each_thing_that_has_them(tmp_path):
    a, b = inode(tmp_path, "a"), inode(tmp_path, "b")
    total, mine = swept([(0, 100, a), (50, 150, b)])
    assert total == {"a": 100, "b": 100}
    assert not any(mine.values())  # of what one has alone, another is out of sight


def test_extents_that_only_files_of_one_thing_have_are_its_own(tmp_path):
    one, two, other = inode(tmp_path, "a"), inode(tmp_path, "a"), inode(tmp_path, "b")
    total, mine = swept([(0, 100, one), (0, 100, two), (60, 100, other)])
    assert total == {"a": 100, "b": 40}
    assert mine == {"a": 60}


def test_extents_of_a_file_with_names_in_two_things_are_nobody_s(tmp_path):
    both, a = inode(tmp_path, "a", "b"), inode(tmp_path, "a")
    total, mine = swept([(0, 10, both), (0, 10, a)])
    assert total == {"a": 10, "b": 10}
    assert not mine
