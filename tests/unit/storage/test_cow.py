"""Files of dm disks: what they say of themselves, and what flattening makes of them."""

import dataclasses
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disks import BLOCK, make_base
from wrennd.storage import cow
from wrennd.storage.cow import CHUNK, PER_AREA, CowError, CowHeader

ID = "0123456789abcdef" * 2
HEADER = CowHeader(base_id=ID, base_bytes=4 << 20, tail_bytes=8192)


def chunks_needed(count):
    """What the kernel uses when every chunk of the base was written (persistent_prepare_exception,
    persistent_commit_exception): data go behind lists of 256, and a full list clears the next."""
    free = 2  # behind the header and the first list
    for number in range(1, count + 1):
        free += 1
        if number % PER_AREA == 0:
            free += 1
    return free


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 511, 512, 1024, 10_000])
def test_the_area_holds_a_full_rewrite(count):
    header = CowHeader(base_id=ID, base_bytes=count * CHUNK)
    assert header.area_bytes // CHUNK > chunks_needed(count)
    assert header.area_bytes // CHUNK <= chunks_needed(count) + 20


def test_a_header_comes_back():
    assert CowHeader.decode(HEADER.encode()) == HEADER
    assert len(HEADER.encode()) == cow.HEADER_BYTES
    assert HEADER.disk_bytes == (4 << 20) + 8192
    assert HEADER.base_name == f"base.{ID}"
    assert HEADER.tail_at % CHUNK == 0


@given(st.integers(0, cow.HEADER_BYTES - 1), st.integers(1, 255))
def test_a_changed_header_is_refused(at, change):
    data = bytearray(HEADER.encode())
    data[at] ^= change
    with pytest.raises(CowError):
        CowHeader.decode(bytes(data))


@given(st.binary(max_size=100))
def test_other_bytes_are_refused(data):
    for wrong in (data, data.ljust(cow.HEADER_BYTES, b"\0")):
        with pytest.raises(CowError):
            CowHeader.decode(wrong)


@pytest.mark.parametrize(
    ("base", "tail"), [(0, 0), (4095, 0), (4096, 1), (-4096, 0), (4096, -4096), (4096, 1 << 44)]
)
def test_sizes_that_can_not_be(base, tail):
    with pytest.raises(CowError):
        CowHeader(base_id=ID, base_bytes=base, tail_bytes=tail)


class Disk:
    """A dm disk and its base as files; `store` is what the kernel's part is to hold."""

    def __init__(self, directory, blocks=16, tail=0):
        contents = {n: bytes([n % 251]) * BLOCK for n in range(1, blocks, 2)}
        self.base = make_base(directory / "base", contents, blocks)
        self.path = directory / "disk"
        self.path.touch()
        self.base_fd = os.open(self.base, os.O_RDONLY)
        self.fd = os.open(self.path, os.O_RDWR)
        self.header = CowHeader(
            base_id=cow.base_id(self.base_fd), base_bytes=blocks * BLOCK, tail_bytes=tail * BLOCK
        )
        cow.write_new(self.fd, self.header)

    def store(self, exceptions, valid=1, version=1, sectors=8):
        """exceptions: {chunk of the base: data, or None for a hole}, in this order."""
        self.area(0, struct.pack("<IIII", 0x70416E53, valid, version, sectors))
        free, lists = 2, {1: b""}
        at = 1
        for old, data in exceptions.items():
            lists[at] += struct.pack("<QQ", old, free)
            if data is not None:
                self.area(free, data)
            free += 1
            if len(lists[at]) == CHUNK:
                at, free = free, free + 1
                lists[at] = b""
        for chunk, entries in lists.items():
            self.area(chunk, entries.ljust(CHUNK, b"\0"))

    def area(self, chunk, data):
        os.pwrite(self.fd, data, cow.HEADER_BYTES + chunk * CHUNK)

    def flat(self, directory):
        target = directory / "flat"
        with target.open("w+b") as file:
            cow.flatten(self.fd, self.base_fd, file.fileno())
        return target.read_bytes()

    def close(self):
        os.close(self.fd)
        os.close(self.base_fd)


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path, tail=2)
    yield made
    made.close()


def test_a_disk_that_nobody_wrote_is_its_base_and_zeros(disk, tmp_path):
    assert disk.flat(tmp_path) == disk.base.read_bytes() + bytes(2 * BLOCK)


def test_what_was_written_is_in_place_of_the_bases(disk, tmp_path):
    disk.store({3: b"x" * CHUNK, 4: b"y" * CHUNK, 0: b"z" * CHUNK})
    os.pwrite(disk.fd, b"tail", disk.header.tail_at + BLOCK)
    wanted = bytearray(disk.base.read_bytes() + bytes(2 * BLOCK))
    wanted[:CHUNK] = b"z" * CHUNK
    wanted[3 * CHUNK : 5 * CHUNK] = b"x" * CHUNK + b"y" * CHUNK
    wanted[17 * CHUNK : 17 * CHUNK + 4] = b"tail"
    assert disk.flat(tmp_path) == wanted


def test_a_hole_in_what_was_written_is_zeros_and_not_the_bases(disk, tmp_path):
    disk.store({1: None, 2: b"k" * CHUNK, 3: None})
    wanted = bytearray(disk.base.read_bytes() + bytes(2 * BLOCK))
    wanted[CHUNK : 4 * CHUNK] = bytes(CHUNK) + b"k" * CHUNK + bytes(CHUNK)
    assert disk.flat(tmp_path) == wanted


def test_more_than_one_list_of_exceptions(tmp_path):
    made = Disk(tmp_path, blocks=600)
    try:
        made.store({n: n.to_bytes(2, "little") * (CHUNK // 2) for n in range(599, 0, -1)})
        flat = made.flat(tmp_path)
        for n in range(1, 600):
            assert flat[n * CHUNK : n * CHUNK + 2] == n.to_bytes(2, "little")
        assert flat[:CHUNK] == made.base.read_bytes()[:CHUNK]
    finally:
        made.close()


def test_runs_are_told_as_runs(disk):
    disk.store({3: b"", 4: b"", 5: b"", 9: b"", 8: b""})
    assert list(cow.exceptions(disk.fd, disk.header)) == [(3, 2, 3), (9, 5, 1), (8, 6, 1)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"valid": 0}, "given it up"),
        ({"version": 2}, "as device-mapper keeps it"),
        ({"sectors": 16}, "as device-mapper keeps it"),
    ],
)
def test_an_area_that_is_of_no_use(disk, change, why):
    disk.store({1: b""}, **change)
    with pytest.raises(CowError, match=why):
        cow.check_valid(disk.fd)


def test_chunks_that_can_not_be(disk, tmp_path):
    disk.store({16: b""})
    with pytest.raises(CowError, match="chunk 16 of 16"):
        disk.flat(tmp_path)


def test_lists_without_an_end(disk):
    disk.store({n % 16: b"" for n in range(16)})
    full = struct.pack("<QQ", 1, 5) * PER_AREA
    disk.area(1, full)
    with pytest.raises(CowError, match="no end"):
        list(cow.exceptions(disk.fd, disk.header))


def test_a_cut_file_is_refused(disk):
    os.ftruncate(disk.fd, disk.header.file_bytes - 1)
    with pytest.raises(CowError, match="bytes instead of"):
        cow.read_header(disk.fd)


def test_a_disk_grows_by_its_tail_and_keeps_what_is_in_it(disk, tmp_path):
    disk.store({3: b"x" * CHUNK})
    os.pwrite(disk.fd, b"tail", disk.header.tail_at)
    before = disk.flat(tmp_path)
    cow.grow(disk.fd, len(before) + 4 * BLOCK)
    assert disk.flat(tmp_path) == before + bytes(4 * BLOCK)
    cow.grow(disk.fd, BLOCK)
    assert cow.read_header(disk.fd).disk_bytes == len(before) + 4 * BLOCK


def test_bases_are_told_apart_by_their_beginning_and_length(tmp_path):
    def id_of(name, **made):
        path = make_base(tmp_path / name, {1: b"x"}, **made)
        with path.open("rb") as file:
            return cow.base_id(file.fileno())

    assert len({id_of("a", blocks=4), id_of("b", blocks=5), id_of("c", blocks=4, mark=b"c")}) == 3
    assert id_of("d", blocks=4) == id_of("e", blocks=4)


def test_headers_are_values():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HEADER.tail_bytes = 0
