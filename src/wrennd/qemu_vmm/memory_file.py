"""The memory file of a snapshot: all of a guest's memory, or what changed of it.

As Firecracker's: no header, the regions one behind the other, as long as the memory. In a Diff a
hole means that nothing changed there; a page of zeros that was written is written here, too. A file
of another length is emptied first; one of the right length is written into: a Diff merges with
what is there, and a Full one may be the very file that the guest was restored from.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from wrennd.linux import files
from wrennd.linux.pagemap import PAGE
from wrennd.qemu_vmm.faults import Fault, Prefix, os_text
from wrennd.qemu_vmm.memory import GuestMemory
from wrennd.qemu_vmm.ranges import Range

_ZERO_PAGE = bytes(PAGE)
_BACKING = f"{Prefix.CREATE_SNAPSHOT}Cannot perform {{}} on the memory backing file: {{}}"
_DIRTY = f"{Prefix.CREATE_SNAPSHOT}Cannot get dirty bitmap: {{}}"
_WRITE = f"{Prefix.CREATE_SNAPSHOT}Cannot write memory file: Cannot dump memory: {{}}"


def save(path: str, memory: GuestMemory, *, is_diff: bool) -> None:
    """Write it and begin a new round of tracking, in this order: a failure loses no dirty page.

    Errors: Fault.
    """
    with _opened(path, memory.size) as (fd, is_new):
        with _told(_DIRTY):
            dirty = memory.dirty()
        with _told(_WRITE):
            if is_diff:
                _write(fd, memory, dirty)
            else:
                _write_all(fd, memory, is_new=is_new)
        with _told(_BACKING, "sync_all"):
            os.fsync(fd)
        with _told(_DIRTY):
            memory.reset(dirty)


@contextmanager
def _told(text: str, *words: str) -> Iterator[None]:
    """OSError becomes the fault that says so."""
    try:
        yield
    except OSError as error:
        raise Fault(text.format(*words, os_text(error))) from error


@contextmanager
def _opened(path: str, size: int) -> Iterator[tuple[int, bool]]:
    """The file, as long as the memory, and whether there is nothing in it yet."""
    with _told(_BACKING, "open"):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except ValueError:
            raise OSError("file name contained an unexpected NUL byte") from None
    try:
        with _told(_BACKING, "get_metadata"):
            is_new = os.fstat(fd).st_size != size
        if is_new:
            with _told(_BACKING, "truncate"):
                os.ftruncate(fd, 0)
        with _told(_BACKING, "set_length"):
            os.ftruncate(fd, size)
        yield fd, is_new
    finally:
        os.close(fd)


def _write(fd: int, memory: GuestMemory, wanted: list[Range]) -> None:
    for batch, data in memory.read(wanted):
        at = 0
        for start, end in batch:
            _write_at(fd, data[at : at + end - start], start)
            at += end - start


def _write_all(fd: int, memory: GuestMemory, *, is_new: bool) -> None:
    """Zeros are left out of a new file, and punched out of one that had something there."""
    done = 0
    for batch, data in memory.read(memory.not_zero()):
        pages, at = bytes(data), 0  # comparing a memoryview is slow
        for start, end in batch:
            if not is_new:
                _clear(fd, done, start)
            for low, high, is_zero in _runs(pages, at, at + end - start):
                if not is_zero:
                    _write_at(fd, data[low:high], start + low - at)
                elif not is_new:
                    _clear(fd, start + low - at, start + high - at)
            at += end - start
            done = end
    if not is_new:
        _clear(fd, done, memory.size)


def _runs(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """The pages of data[start:end] in runs, and whether a run is zeros."""
    was_zero = data[start : start + PAGE] == _ZERO_PAGE
    for at in range(start + PAGE, end, PAGE):
        if (data[at : at + PAGE] == _ZERO_PAGE) is not was_zero:
            yield start, at, was_zero
            start, was_zero = at, not was_zero
    yield start, end, was_zero


def _clear(fd: int, start: int, end: int) -> None:
    """Zeros instead of what stands there: a hole where the file system has such."""
    if start == end:
        return
    try:
        files.punch_hole(fd, start, end - start)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        for at in range(start, end, PAGE):
            _write_at(fd, memoryview(_ZERO_PAGE), at)


def _write_at(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count
