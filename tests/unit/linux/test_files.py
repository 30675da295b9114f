import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrennd.linux import files

BLOCK = 4096


@settings(deadline=None, max_examples=40)
@given(blocks=st.lists(st.booleans(), max_size=24), tail=st.integers(0, BLOCK - 1))
def test_a_sparse_copy_has_the_same_bytes_and_no_more_blocks(tmp_path_factory, blocks, tail):
    path = tmp_path_factory.mktemp("sparse")
    with (path / "a").open("wb") as source:
        for number, is_data in enumerate(blocks):
            if is_data:
                source.seek(number * BLOCK)
                source.write(bytes([number + 1]) * BLOCK)
        source.truncate(len(blocks) * BLOCK + tail)
    with (path / "a").open("rb") as source, (path / "b").open("w+b") as target:
        files.copy_sparse(source.fileno(), target.fileno())
    assert (path / "a").read_bytes() == (path / "b").read_bytes()
    assert (path / "b").stat().st_blocks <= (path / "a").stat().st_blocks


def test_data_runs_of_an_empty_file_and_of_one_hole(tmp_path):
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    assert list(files.data_runs(fd, 0)) == []
    os.ftruncate(fd, 1 << 20)
    assert list(files.data_runs(fd, 1 << 20)) == []
    os.close(fd)


def test_write_atomic_replaces_and_leaves_no_other_file(tmp_path):
    target = tmp_path / "record.json"
    files.write_atomic(target, b"one")
    files.write_atomic(target, b"two")
    assert target.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "record.json").mkdir()  # a rename onto a directory fails
    with pytest.raises(IsADirectoryError):
        files.write_atomic(tmp_path / "record.json", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_lock_has_one_holder_and_goes_with_its_descriptor(tmp_path):
    first = os.open(tmp_path / "l", os.O_RDWR | os.O_CREAT)
    second = os.open(tmp_path / "l", os.O_RDWR)
    assert files.try_lock(first)
    assert not files.try_lock(second)
    os.close(first)
    assert files.try_lock(second)
    os.close(second)
