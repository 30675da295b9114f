"""userfaultfd(2) from outside: what a holder of the descriptor may do (fs/userfaultfd.c).

A userfaultfd belongs to the memory of the process that made it. Every call here may be made by any
process that has a copy of the descriptor.
"""

import ctypes
import fcntl
import os
import struct

from wrennd.linux.libc import check, function

DEVICE = "/dev/userfaultfd"  # Linux 6.1; unlike the system call it needs no capability

USERFAULTFD_IOC_NEW = 0xAA00  # _IO(0xAA, 0x00)
UFFDIO_API = 0xC018AA3F  # _IOWR(0xAA, 0x3F, struct uffdio_api)
UFFDIO_REGISTER = 0xC020AA00  # _IOWR(0xAA, 0x00, struct uffdio_register)
UFFD_API = 0xAA

UFFD_FEATURE_EVENT_REMOVE = 1 << 3
UFFD_FEATURE_WP_UNPOPULATED = 1 << 13
UFFD_FEATURE_WP_ASYNC = 1 << 15  # Linux 6.7

UFFDIO_REGISTER_MODE_MISSING = 1
UFFDIO_REGISTER_MODE_WP = 2

SYS_USERFAULTFD = 323
_API = struct.Struct("=QQQ")
_REGISTER = struct.Struct("=QQQQ")
_syscall = function("syscall", ctypes.c_long, ctypes.c_int, restype=ctypes.c_long)


def open_device() -> int:
    """/dev/userfaultfd, from which descriptors are made. Errors: OSError."""
    return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)


def create(device: int) -> int:
    """A userfaultfd for this process; `device` -1: by system call. Errors: OSError."""
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    if device >= 0:
        return fcntl.ioctl(device, USERFAULTFD_IOC_NEW, flags)
    return int(check(_syscall(SYS_USERFAULTFD, flags), "userfaultfd"))


def enable(fd: int, features: int) -> int:
    """Begin to use `fd` with these features, once. Returns all that the kernel knows.

    Errors: OSError, EINVAL when it knows not all of them.
    """
    answer = fcntl.ioctl(fd, UFFDIO_API, _API.pack(UFFD_API, features, 0))
    return int(_API.unpack(answer)[1])


def register(fd: int, start: int, length: int, mode: int) -> None:
    """Watch [start, start + length) of the descriptor's process. Errors: OSError."""
    fcntl.ioctl(fd, UFFDIO_REGISTER, _REGISTER.pack(start, length, mode, 0))
