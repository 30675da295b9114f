"""Files as the kernel offers them: locks, clones, sparse copies, atomic and durable writes."""

import ctypes
import errno
import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wrennd.linux.libc import check, function

FICLONE = 0x40049409  # _IOW(0x94, 9, int), linux/fs.h
SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
_sync_file_range = function(
    "sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint
)
# What FICLONE says where files can't be cloned: the filesystem, or these two files.
CANT_CLONE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EXDEV})
_PROBE_PAGES = 4096  # 16 MiB, of which two pages are written
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2

_fallocate = function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def try_lock(fd: int) -> bool:
    """Take an exclusive flock(2) if nobody has it. It goes with the last copy of the descriptor."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` (made if absent, never removed). Blocks until it is free."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def clone(source: int, target: int) -> None:
    """Make `target` share all blocks of `source` (FICLONE). OSError where it can't be done."""
    fcntl.ioctl(target, FICLONE, source)


def punch_hole(fd: int, start: int, length: int) -> None:
    """Give back the blocks of a range, which reads as zeros. OSError, EOPNOTSUPP where it can't."""
    check(_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, length), "fallocate")


def clone_or_copy(source: int, target: int) -> None:
    """Fill the empty `target` with `source`, in no time where the filesystem can clone."""
    try:
        clone(source, target)
    except OSError as error:
        if error.errno not in CANT_CLONE:
            raise
        copy_sparse(source, target)


def copy_sparse(source: int, target: int) -> None:
    """Copy the data of `source` into the empty `target`, holes staying holes."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    for start, end in data_runs(source, size):
        copy_run(source, target, start, end)


def data_runs(fd: int, size: int, *, start: int = 0) -> Iterator[tuple[int, int]]:
    """The [start, end) runs between `start` and `size` of a sparse file that are not holes
    (SEEK_DATA, SEEK_HOLE)."""
    at = start
    while at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        if data >= size:
            return
        at = min(os.lseek(fd, data, os.SEEK_HOLE), size)
        yield data, at


def has_exact_holes(directory: Path) -> bool:
    """Whether it is known of every page of a sparse file there whether it was written.

    Not on filesystems that work in larger pieces, which then are data as a whole: ZFS, a tmpfs with
    huge pages. Those say so by their preferred block size, or by what SEEK_DATA finds.
    """
    page = mmap.PAGESIZE
    with tempfile.TemporaryFile(dir=directory) as file:
        fd = file.fileno()
        if os.fstat(fd).st_blksize > page:
            return False
        os.ftruncate(fd, _PROBE_PAGES * page)
        written = [(at * page, (at + 1) * page) for at in (5, _PROBE_PAGES - 3)]
        for start, end in written:
            os.pwrite(fd, b"\1" * (end - start), start)
        return list(data_runs(fd, _PROBE_PAGES * page)) == written


def copy_run(source: int, target: int, start: int, end: int) -> None:
    """Copy the bytes [start, end) to the same place. OSError EIO when the source ends before."""
    copy_range(source, target, start, start, end - start)


def copy_range(source: int, target: int, at: int, to: int, count: int) -> None:
    """Copy `count` bytes from `at` to `to`. OSError EIO when the source ends before."""
    while count:
        copied = _copy_some(source, target, at, to, count)
        if copied == 0:
            raise OSError(errno.EIO, "the source became shorter while it was copied")
        at, to, count = at + copied, to + copied, count - copied


def _copy_some(source: int, target: int, at: int, to: int, count: int) -> int:
    """Copy inside the kernel. Between different filesystems copy_file_range says EXDEV."""
    try:
        return os.copy_file_range(source, target, count, at, to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    os.lseek(target, to, os.SEEK_SET)
    return os.sendfile(target, source, at, count)


def start_writeback(fd: int, start: int, length: int) -> None:
    """Let the disk begin with dirty pages of [start, start + length), 0: to the end; don't wait.

    For a file that will be synced when it is complete: the disk works while the rest is written.
    """
    check(_sync_file_range(fd, start, length, SYNC_FILE_RANGE_WRITE), "sync_file_range")


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `data` in one step; on return it is on the disk."""
    made = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        made.rename(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
