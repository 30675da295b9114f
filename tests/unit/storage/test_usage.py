"""What things take of the disk."""

import os
import threading

import pytest

from wrennd.storage.usage import disk_usage, disk_usage_of

MIB = 1 << 20


def written(path, size):
    path.write_bytes(os.urandom(size))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path


def own(path):
    return path.lstat().st_blocks * 512


def test_a_sparse_file_takes_what_was_written(tmp_path):
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(1024 * MIB)
        file.seek(512 * MIB)
        file.write(os.urandom(MIB))
        os.fsync(file.fileno())
    assert MIB <= disk_usage(path) < 2 * MIB


def test_hard_links_count_once_wherever_they_are(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    memory = written(one / "memfile.a", MIB)
    (one / "again").hardlink_to(memory)
    (two / "memfile.a").hardlink_to(memory)
    assert disk_usage(one) == own(one) + own(memory)
    assert disk_usage(two) == own(two) + own(memory)
    assert disk_usage_of([one, two]) == own(one) + own(two) + own(memory)
    assert disk_usage_of([one, one / "memfile.a", one]) == disk_usage(one)


def test_symlinks_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    written(outside / "large", MIB)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "file").symlink_to(outside / "large")
    (inside / "folder").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    (inside / "nowhere").symlink_to("/no/such/place")
    assert disk_usage(inside) == own(inside) + sum(own(path) for path in inside.iterdir())
    assert disk_usage(inside / "folder") == own(inside / "folder")


def test_what_is_not_there_takes_nothing(tmp_path):
    assert disk_usage(tmp_path / "no") == 0
    assert disk_usage(tmp_path / "no" / "where") == 0
    assert disk_usage(written(tmp_path / "file", 10) / "below") == 0
    assert disk_usage_of([]) == 0


def test_files_that_go_away_meanwhile_are_no_error(tmp_path):
    """Files and directories come and go for as long as the counting does."""
    has_ended = threading.Event()

    def come_and_go():
        while not has_ended.is_set():
            for name in ("a", "b", "c"):
                (tmp_path / name).mkdir()
                (tmp_path / name / "file").touch()
            for name in ("a", "b", "c"):
                (tmp_path / name / "file").unlink()
                (tmp_path / name).rmdir()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(200):
            assert disk_usage(tmp_path) >= 0
    finally:
        has_ended.set()
        thread.join()


@pytest.mark.parametrize("size", [0, 1, 4096, 100_000])
def test_a_plain_file(tmp_path, size):
    assert disk_usage(written(tmp_path / "file", size)) == own(tmp_path / "file")
