"""userfaultfd as the kernel speaks it: numbers, messages, arguments (linux/userfaultfd.h).

A copy of what the pager needs, since it imports no other package of ours but the header's.
"""

import struct

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

# ioctl numbers, composed by _IOWR(0xAA, nr, size) and _IOR for WAKE; the same on x86-64 and arm64.
UFFDIO_WAKE = 0x8010AA02
UFFDIO_COPY = 0xC028AA03
UFFDIO_ZEROPAGE = 0xC020AA04

UFFDIO_COPY_MODE_DONTWAKE = 1
UFFDIO_COPY_MODE_WP = 2
UFFDIO_ZEROPAGE_MODE_DONTWAKE = 1

# struct uffd_msg: event in the lowest byte of the first word, then three words by event.
MESSAGE = struct.Struct("<QQQQ")
EVENT_PAGEFAULT = 0x12  # flags, address, thread
EVENT_REMOVE = 0x15  # start, end
PAGEFAULT_FLAG_WRITE = 1

RANGE = struct.Struct("<QQ")  # struct uffdio_range: start, len
COPY = struct.Struct("<QQQQq")  # struct uffdio_copy: dst, src, len, mode, copy
COPY_DONE = 32  # where in it the kernel writes how many bytes were copied, or -errno
ZEROPAGE = struct.Struct("<QQQq")  # struct uffdio_zeropage: start, len, mode, zeropage
ZEROPAGE_DONE = 24
DONE = struct.Struct("<q")

# asm-generic/socket.h; since Linux 6.5, and Python's socket module does not name it.
SO_PEERPIDFD = 77
