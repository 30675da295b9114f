"""Everything that is wrong with a snapshot: each checksum is computed, each page is read."""

import os
import stat
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from wrennd.core.errors import SnapshotBroken
from wrennd.snapshot import checksums
from wrennd.snapshot.header import PAGE_SIZE, ZERO, Header
from wrennd.snapshot.manifest import FileFacts, Layout, Manifest
from wrennd.snapshot.reader import (
    HEADER,
    MANIFEST,
    MEMFILE,
    Snapshot,
    open_snapshot,
    read_header,
    read_manifest,
)
from wrennd.snapshot.sums import ZERO_SUM

MAX_PAGES_NAMED = 20  # of one memory file; how many more there are is said too
_CHUNK_PAGES = 256


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is not as it was written. `str()` of it is a sentence."""

    file: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}: expected {self.expected}, found {self.found}"


def verify(directory: Path) -> tuple[Problem, ...]:
    """What is wrong with a snapshot; empty if all of it is as it was written.

    Reads all of it: seconds for each GiB. Errors: NotFound; SnapshotIncompatible.
    """
    try:
        manifest = read_manifest(directory)
    except SnapshotBroken as error:
        return (Problem(file=MANIFEST, expected="what was written", found=str(error)),)
    problems: list[Problem] = []
    for name, facts in sorted(manifest.files.items()):
        problems += _file_problems(directory / name, facts)
    problems += _memory_problems(directory, manifest, {problem.file for problem in problems})
    if not problems:
        try:
            open_snapshot(directory)
        except SnapshotBroken as error:
            return (Problem(file=MANIFEST, expected="parts that fit", found=str(error)),)
    return tuple(problems)


def _file_problems(path: Path, facts: FileFacts) -> Iterator[Problem]:
    """What can be said of a file without the others."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            yield Problem(file=path.name, expected="a regular file", found="something else")
        elif status.st_size != facts.size:
            yield Problem(file=path.name, expected=f"{facts.size} bytes", found=f"{status.st_size}")
        elif facts.checksum != checksums.PAGES:
            found = checksums.as_given(path, facts.checksum)
            if found != facts.checksum:
                yield Problem(file=path.name, expected=facts.checksum, found=found)
    except OSError as error:
        yield Problem(
            file=path.name, expected=f"{facts.size} bytes", found=error.strerror or str(error)
        )


def _memory_problems(directory: Path, manifest: Manifest, broken: set[str]) -> Iterator[Problem]:
    """What is wrong with pages, in the files that can be judged: those not known as broken."""
    try:
        header = read_header(directory, manifest)
        snapshot = Snapshot(directory=directory, manifest=manifest, header=header)
        sums = snapshot.read_sums()
    except (SnapshotBroken, OSError, KeyError):
        return  # said already, of the file itself
    is_single = manifest.layout is Layout.SINGLE
    if is_single and MEMFILE in broken:
        return  # its holes are all the header that there is
    yield from _zero_problems(MEMFILE if is_single else HEADER, header, sums)
    for source, path in enumerate(snapshot.memfiles, start=1):
        if path.name not in broken:
            wrong = _wrong_pages(path, header, source, sums)
            try:
                yield from _named(path.name, wrong)
            except OSError as error:
                found = error.strerror or str(error)
                yield Problem(file=path.name, expected="pages that can be read", found=found)


def _zero_problems(file: str, header: Header, sums: "array[int]") -> Iterator[Problem]:
    """Zero pages that were not zero, in the file that says which pages are."""
    for start, stop, source in header.runs():
        if source == ZERO and sums[start:stop].count(ZERO_SUM) != stop - start:
            pages = f"pages {start} to {stop - 1}"
            yield Problem(file=file, expected=f"data in {pages}", found="zeros")


def _wrong_pages(
    path: Path, header: Header, source: int, sums: "array[int]"
) -> Iterator[tuple[int, int, int]]:
    """(page, expected sum, found sum) of the pages that `path` holds and that are not right."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    buffer = memoryview(bytearray(_CHUNK_PAGES * PAGE_SIZE))
    try:
        for start, stop, found in header.runs():
            if found != source:
                continue
            for lower in range(start, stop, _CHUNK_PAGES):
                upper = min(lower + _CHUNK_PAGES, stop)
                count = checksums.read_into(
                    fd, buffer[: (upper - lower) * PAGE_SIZE], lower * PAGE_SIZE
                )
                for page in range(lower, upper):
                    at = (page - lower) * PAGE_SIZE
                    actual = zlib.crc32(buffer[at : min(at + PAGE_SIZE, count)])
                    if actual != sums[page]:
                        yield page, sums[page], actual
    finally:
        os.close(fd)


def _named(file: str, wrong: Iterator[tuple[int, int, int]]) -> Iterator[Problem]:
    for page, expected, found in islice(wrong, MAX_PAGES_NAMED):
        yield Problem(
            file=f"{file}, page {page} at {page * PAGE_SIZE}",
            expected=f"crc32:{expected:08x}",
            found=f"crc32:{found:08x}",
        )
    more = sum(1 for _ in wrong)
    if more:
        yield Problem(file=file, expected="all pages right", found=f"{more} more wrong pages")
