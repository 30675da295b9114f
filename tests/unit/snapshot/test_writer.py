"""What a pause stores of the memory file that a VMM wrote."""

import os
import threading
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshot_samples import ZERO_PAGE, fill_diff, page_of, write_diff
from wrennd.core.errors import SnapshotBroken, VmmFailed
from wrennd.linux.files import data_runs
from wrennd.snapshot.header import PAGE_SIZE, Header
from wrennd.snapshot.manifest import MIB
from wrennd.snapshot.reader import Pages
from wrennd.snapshot.sums import zero_sums
from wrennd.snapshot.writer import opened_output, store_diff

A, B = "a" * 32, "b" * 32
SMALL = 24  # pages
# The bits of CRC-32's polynomial: a page that differs from another by them has the same checksum.
COLLISION = (1 | 0xEDB88320 << 1).to_bytes(8, "little")


class Memfd:
    """A file without a name, as sparse as any."""

    def __enter__(self) -> int:
        self.fd = os.memfd_create("test")
        return self.fd

    def __exit__(self, *_):
        os.close(self.fd)


def store(parent, sums, written, build=A, pages=SMALL):
    """Store a diff; the result, its image, and which pages its file has."""
    with Memfd() as source, Memfd() as target:
        fill_diff(source, written, pages * PAGE_SIZE)
        stored = store_diff(source, target, parent, sums, build)
        runs = list(data_runs(target, pages * PAGE_SIZE))
        held = {page for a, b in runs for page in range(a // PAGE_SIZE, b // PAGE_SIZE)}
        assert os.fstat(target).st_size == pages * PAGE_SIZE
        return stored, {page: os.pread(target, PAGE_SIZE, page * PAGE_SIZE) for page in held}


CONTENTS = st.sampled_from([ZERO_PAGE, *(page_of(number) for number in range(3))])
DIFFS = st.dictionaries(st.integers(0, SMALL - 1), CONTENTS, max_size=SMALL)


@given(st.lists(DIFFS, min_size=1, max_size=5))
def test_after_each_pause_the_image_is_the_guests(diffs):
    memory = [ZERO_PAGE] * SMALL
    files = {}
    header, sums = Header.zero(SMALL), zero_sums(SMALL)
    for number, written in enumerate(diffs, start=1):
        build = f"{number:032x}"
        with Memfd() as source, Memfd() as target:
            fill_diff(source, written, SMALL * PAGE_SIZE)
            parent = Pages(header, tuple(files[name] for name in header.builds))
            stored = store_diff(source, target, parent, sums, build)
            files[build] = os.dup(target)
        changed = {page for page, data in written.items() if memory[page] != data}
        assert stored.data_pages == len([p for p in changed if written[p] != ZERO_PAGE])
        assert stored.zero_pages == len([p for p in changed if written[p] == ZERO_PAGE])
        memory = [written.get(page, old) for page, old in enumerate(memory)]
        header, sums = stored.header, stored.sums
        pages = Pages(header, tuple(files[name] for name in header.builds))
        served = [pages.read(p) if header.table[p] else ZERO_PAGE for p in range(SMALL)]
        assert served == memory
        assert list(sums) == [zlib.crc32(page) for page in memory]
    for fd in files.values():
        os.close(fd)


def test_only_what_differs_is_stored():
    with Memfd() as lower:
        fill_diff(lower, {0: page_of(1), 1: page_of(2), 2: page_of(3)}, SMALL * PAGE_SIZE)
        sums = zero_sums(SMALL)
        for page in range(3):
            sums[page] = zlib.crc32(page_of(page + 1))
        parent = Pages(Header((B,), b"\1\1\1".ljust(SMALL, b"\0")), (lower,))
        written = {0: page_of(1), 1: ZERO_PAGE, 2: page_of(9), 3: ZERO_PAGE, 4: page_of(4)}
        stored, held = store(parent, sums, written)
    assert held == {2: page_of(9), 4: page_of(4)}
    assert stored.header == Header((B, A), bytes((1, 0, 2, 0, 2)).ljust(SMALL, b"\0"))
    assert (stored.data_pages, stored.zero_pages) == (2, 1)


def test_a_page_with_the_parents_checksum_and_other_bytes_is_stored():
    one = page_of(1)
    other = bytes(a ^ b for a, b in zip(one, COLLISION.ljust(PAGE_SIZE, b"\0"), strict=True))
    assert zlib.crc32(one) == zlib.crc32(other)
    assert one != other
    with Memfd() as lower:
        fill_diff(lower, {0: one}, SMALL * PAGE_SIZE)
        sums = zero_sums(SMALL)
        sums[0] = zlib.crc32(one)
        parent = Pages(Header((B,), b"\1".ljust(SMALL, b"\0")), (lower,))
        _, held = store(parent, sums, {0: other})
    assert held == {0: other}


def test_a_page_with_the_checksum_of_a_zero_page_is_stored():
    odd = COLLISION.ljust(PAGE_SIZE, b"\0")
    stored, held = store(Pages.zero(SMALL), zero_sums(SMALL), {0: odd})
    assert (held, stored.data_pages) == ({0: odd}, 1)


def test_more_pages_than_the_buffer_takes():
    pages = 700
    written = {page: page_of(page) for page in range(pages) if page % 7}
    stored, held = store(Pages.zero(pages), zero_sums(pages), written, pages=pages)
    assert held == written
    assert stored.data_pages == len(written)


def test_a_page_that_was_written_in_part_is_written():
    with Memfd() as source, Memfd() as target:
        os.ftruncate(source, SMALL * PAGE_SIZE)
        os.pwrite(source, b"x", 5 * PAGE_SIZE + 1000)
        stored = store_diff(source, target, Pages.zero(SMALL), zero_sums(SMALL), A)
    assert [page for page, source in enumerate(stored.header.table) if source] == [5]


def test_an_empty_diff_stores_nothing():
    stored, held = store(Pages.zero(SMALL), zero_sums(SMALL), {})
    assert (held, stored.header) == ({}, Header.zero(SMALL))


def test_a_parent_that_ends_early_is_broken():
    with Memfd() as lower:
        os.truncate(lower, PAGE_SIZE // 2)
        sums = zero_sums(SMALL)
        sums[0] = zlib.crc32(page_of(1))
        parent = Pages(Header((B,), b"\1".ljust(SMALL, b"\0")), (lower,))
        with pytest.raises(SnapshotBroken, match=f"memfile.{B} ends before page 0"):
            store(parent, sums, {0: page_of(1)})


def test_a_file_that_shrinks_after_it_was_opened(tmp_path):
    path = write_diff(tmp_path / "memory", {page: page_of(page) for page in range(256)})
    for length in (0, 5000, MIB - 1):
        write_diff(path, {page: page_of(page) for page in range(256)})
        with opened_output(path, size=MIB) as source, Memfd() as target:
            os.truncate(path, length)
            with pytest.raises(VmmFailed, match="its memory file while"):
                store_diff(source, target, Pages.zero(256), zero_sums(256), A)


def test_a_file_that_grows_stores_no_more_than_the_memory(tmp_path):
    path = write_diff(tmp_path / "memory", {0: page_of(0)})
    with opened_output(path, size=MIB) as source, Memfd() as target:
        os.truncate(path, 1 << 40)
        with pytest.raises(VmmFailed, match="changed the length"):
            store_diff(source, target, Pages.zero(256), zero_sums(256), A)
        assert os.fstat(target).st_size == MIB


def test_a_file_that_changes_all_the_time_is_an_error_at_worst(tmp_path):
    path = write_diff(tmp_path / "memory", {0: page_of(0)})
    over = threading.Event()

    def change():
        with path.open("r+b") as file:
            for number in range(1 << 30):
                if over.is_set():
                    return
                os.ftruncate(file.fileno(), (number % 3) * 500_000)
                os.ftruncate(file.fileno(), MIB)
                os.pwrite(file.fileno(), page_of(number), number * 7 % 256 * PAGE_SIZE)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(50):
            with Memfd() as target:
                with suppress(VmmFailed), opened_output(path, size=MIB) as source:
                    store_diff(source, target, Pages.zero(256), zero_sums(256), A)
                assert os.fstat(target).st_blocks * 512 <= MIB
    finally:
        over.set()
        thread.join()


def test_outputs_that_are_not_what_they_should_be(tmp_path):
    secret = write_diff(tmp_path / "secret", {0: b"secret"})
    path = tmp_path / "memory"

    def refused(complaint, **size):
        with pytest.raises(VmmFailed, match=complaint), opened_output(path, **size):
            pass

    refused("did not write memory: No such file", size=MIB)
    path.symlink_to(secret)
    refused("did not write memory: Too many levels of symbolic links", size=MIB)
    path.unlink()
    os.link(secret, path)
    refused("not a file of its own", size=MIB)
    path.unlink()
    os.mkfifo(path)
    refused("not a file of its own", size=MIB)
    path.unlink()
    path.mkdir()
    refused("not a file of its own", size=MIB)
    path.rmdir()
    write_diff(path, {}, MIB - 1)
    refused("wrote 1048575 bytes of memory instead of 1048576", size=MIB)
    refused("wrote 1048575 bytes of memory instead of at most 1000", max_size=1000)
    with opened_output(path, max_size=MIB) as fd:
        assert os.fstat(fd).st_size == MIB - 1
