"""One userfaultfd, as far as pages are put through it: UFFDIO_COPY, ZEROPAGE, WAKE.

What the kernel's refusals mean is here, and nowhere else; docs/memory.md has the table.
"""

import errno
import fcntl

from wrennd.pager.abi import (
    COPY,
    COPY_DONE,
    DONE,
    PAGE_SHIFT,
    PAGE_SIZE,
    RANGE,
    UFFDIO_COPY,
    UFFDIO_WAKE,
    UFFDIO_ZEROPAGE,
    ZEROPAGE,
    ZEROPAGE_DONE,
)

_pack_copy, _pack_zeropage, _ioctl = COPY.pack_into, ZEROPAGE.pack_into, fcntl.ioctl


class Fatal(Exception):
    """The guest can't go on without seeing memory that is not its own."""


class Unreadable(Fatal):
    """A page of the snapshot can't be read: its file lost its end, or its disk fails."""


class Busy(Exception):
    """A removal is under way; nothing can be installed before its event is read."""


class Gone(Exception):
    """The VMM's memory does not exist any more."""


class Uffd:
    """Puts pages where they are missing. Owns no descriptor. For one thread.

    Errors, of `copy` and `zero`: FileExistsError when the first page is there; Busy, Gone, Fatal.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._copy_argument = bytearray(COPY.size)
        self._zero_argument = bytearray(ZEROPAGE.size)

    def copy(self, at: int, place: int, count: int, mode: int) -> int:
        """Copy `count` pages from `place` in this process to `at` in the VMM; how many it did."""
        argument = self._copy_argument
        _pack_copy(argument, 0, at, place, count << PAGE_SHIFT, mode, 0)
        try:
            _ioctl(self._fd, UFFDIO_COPY, argument)
        except OSError as error:
            # Valid after errors, too: the pages before the one that was there.
            done: int = DONE.unpack_from(argument, COPY_DONE)[0]
            if done > 0:
                return done >> PAGE_SHIFT
            raise _explained(error, f"UFFDIO_COPY to {at:#x}") from error
        return count

    def zero(self, at: int, count: int, mode: int) -> int:
        """Map `count` pages of zeros at `at`; how many it did."""
        argument = self._zero_argument
        _pack_zeropage(argument, 0, at, count << PAGE_SHIFT, mode, 0)
        try:
            _ioctl(self._fd, UFFDIO_ZEROPAGE, argument)
        except OSError as error:
            done: int = DONE.unpack_from(argument, ZEROPAGE_DONE)[0]
            if done > 0:
                return done >> PAGE_SHIFT
            raise _explained(error, f"UFFDIO_ZEROPAGE at {at:#x}") from error
        return count

    def wake(self, at: int, size: int = PAGE_SIZE) -> None:
        """Have those who wait there look again. Errors: OSError."""
        _ioctl(self._fd, UFFDIO_WAKE, RANGE.pack(at, size))


def _explained(error: OSError, what: str) -> Exception:
    if error.errno == errno.EEXIST:
        return error
    if error.errno == errno.EAGAIN:
        return Busy()
    if error.errno == errno.ESRCH:
        return Gone()
    if error.errno == errno.EFAULT:
        return Unreadable(f"{what}: a page of the snapshot can't be read")
    return Fatal(f"{what}: {error.strerror}")
