"""What `wrenn snapshot verify` finds: everything, by name."""

import os
import random

import pytest

from snapshot_samples import ZERO_PAGE, overwrite, page_of, pause, reworded, rewrite
from wrennd.core.errors import NotFound
from wrennd.snapshot import checksums
from wrennd.snapshot.header import PAGE_SIZE
from wrennd.snapshot.store import remove
from wrennd.snapshot.sums import encode_sums
from wrennd.snapshot.verify import MAX_PAGES_NAMED, verify


@pytest.fixture(params=["chain", "single"])
def snapshot(request, tmp_path):
    written = {page: page_of(page) for page in range(1, 60)}
    first = pause(tmp_path / "gen-1", written, whole=request.param == "single")
    if request.param == "single":
        return first
    return pause(tmp_path / "gen-2", {2: page_of(99), 5: ZERO_PAGE}, parent=first)


def test_a_good_one(snapshot):
    assert verify(snapshot.directory) == ()


def test_a_wrong_byte_of_memory_is_named_by_file_and_page(snapshot):
    path = snapshot.memfiles[0]
    overwrite(path, b"!", 7 * PAGE_SIZE + 100)
    (problem,) = verify(snapshot.directory)
    assert problem.file == f"{path.name}, page 7 at {7 * PAGE_SIZE}"
    assert problem.expected == f"crc32:{snapshot.read_sums()[7]:08x}"
    assert problem.found.startswith("crc32:")
    assert str(problem) == (f"{problem.file}: expected {problem.expected}, found {problem.found}")


def test_a_page_that_nobody_uses_any_more_is_not_missed(snapshot):
    if len(snapshot.memfiles) > 1:
        overwrite(snapshot.memfiles[0], b"!", 2 * PAGE_SIZE)
        overwrite(snapshot.memfiles[0], b"!", 5 * PAGE_SIZE)
    assert verify(snapshot.directory) == ()


def test_a_file_full_of_wrong_pages_is_not_a_book(snapshot):
    overwrite(snapshot.memfiles[0], bytes(60 * PAGE_SIZE), 0)
    problems = verify(snapshot.directory)
    assert len(problems) == MAX_PAGES_NAMED + 1
    assert "more wrong pages" in problems[-1].found


def test_holes_where_data_were(snapshot):
    path = snapshot.memfiles[0]
    os.truncate(path, 0)
    os.truncate(path, 256 * PAGE_SIZE)
    problems = verify(snapshot.directory)
    assert {problem.file.split(",")[0] for problem in problems} == {path.name}


@pytest.mark.parametrize("name", ["state", "rootfs.ext4", "token", "sums"])
def test_a_wrong_byte_of_a_file_is_named(snapshot, name):
    overwrite(snapshot.directory / name, b"!", 3)
    (problem,) = verify(snapshot.directory)
    assert problem.file == name
    assert problem.expected == snapshot.manifest.files[name].checksum
    assert problem.found != problem.expected


def test_a_wrong_header_is_named(tmp_path):
    snapshot = pause(tmp_path / "gen-1", {1: page_of(1)})
    overwrite(snapshot.directory / "header", b"!", 40)
    (problem,) = verify(snapshot.directory)
    assert problem.file == "header"


@pytest.mark.parametrize("name", ["state", "rootfs.ext4", "token", "sums", "memory"])
def test_a_missing_a_short_and_a_strange_file_are_named(snapshot, name):
    path = snapshot.memfiles[0] if name == "memory" else snapshot.directory / name
    size = path.stat().st_size
    path.chmod(0o600)
    os.truncate(path, 2)
    (problem,) = verify(snapshot.directory)
    assert (problem.file, problem.expected, problem.found) == (path.name, f"{size} bytes", "2")
    path.unlink()
    (problem,) = verify(snapshot.directory)
    assert (problem.file, problem.found) == (path.name, "No such file or directory")
    path.mkdir()
    (problem,) = verify(snapshot.directory)
    assert (problem.file, problem.expected) == (path.name, "a regular file")


def test_all_that_is_wrong_is_said_at_once(snapshot):
    overwrite(snapshot.directory / "state", b"!", 0)
    overwrite(snapshot.directory / "rootfs.ext4", b"!", 0)
    overwrite(snapshot.memfiles[0], b"!", PAGE_SIZE)
    (snapshot.directory / "token").unlink()
    assert [problem.file.split(",")[0] for problem in verify(snapshot.directory)] == [
        "rootfs.ext4",
        "state",
        "token",
        snapshot.memfiles[0].name,
    ]


def test_a_manifest_that_can_not_be_read(snapshot):
    overwrite(snapshot.directory / "manifest.json", b"!", 0)
    (problem,) = verify(snapshot.directory)
    assert problem.file == "manifest.json"


def test_parts_that_do_not_fit(tmp_path):
    snapshot = pause(tmp_path / "gen-1", {1: page_of(1)})
    reworded(snapshot.directory, lambda manifest: manifest["facts"].update(mem_mib=7))
    (problem,) = verify(snapshot.directory)
    assert "its guest 7340032" in problem.found


def test_what_can_not_be_verified(snapshot):
    remove(snapshot.directory)
    with pytest.raises(NotFound):
        verify(snapshot.directory)


def test_sums_that_call_a_zero_page_data(tmp_path):
    snapshot = pause(tmp_path / "gen-1", {})
    sums = snapshot.read_sums()
    sums[17] = 5
    data = encode_sums(sums)
    rewrite(snapshot.directory / "sums", data)
    checksum = checksums.of_bytes(data)
    reworded(
        snapshot.directory, lambda manifest: manifest["files"]["sums"].update(checksum=checksum)
    )
    (problem,) = verify(snapshot.directory)
    assert str(problem) == "header: expected data in pages 0 to 255, found zeros"


def test_any_flipped_bit_is_found_in_its_file(snapshot):
    chance = random.Random(7)
    for path in sorted(snapshot.directory.iterdir()):
        if path.name.startswith("memfile"):
            source = [other.name for other in snapshot.memfiles].index(path.name) + 1
            page = chance.choice([p for p, s in enumerate(snapshot.header.table) if s == source])
            at = page * PAGE_SIZE + chance.randrange(PAGE_SIZE)
        else:
            # The last byte of the manifest is a newline, which says nothing.
            at = chance.randrange(path.stat().st_size - 1)
        byte = path.read_bytes()[at : at + 1]
        overwrite(path, bytes((byte[0] ^ 1 << chance.randrange(7),)), at)
        problems = verify(snapshot.directory)
        assert {problem.file.split(",")[0] for problem in problems} == {path.name}, at
        overwrite(path, byte, at)
    assert verify(snapshot.directory) == ()
