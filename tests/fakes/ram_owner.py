"""Stands in for QEMU before the RAM shim: maps its RAM as QEMU does, then does what it is told.

    ram_owner.py BYTES        (with the shim preloaded and WRENN_RAM_SHIM set)

A line of JSON in, a line out: [operation, page, count, value]. Operations: `fill` writes the byte
`value` all over the pages, `read` answers what they hold (one digit string a page: the byte if
all of it is alike), `discard` is what a balloon does, `pageout` swaps out, `huge` asks for huge
pages as QEMU does, `stop` ends.
"""

import ctypes
import json
import mmap
import os
import sys

PAGE = 4096
MAP_FIXED = 0x10
MADVICE = {"discard": 4, "pageout": 21, "huge": 14}

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def main():
    size = int(sys.argv[1])
    memfd = os.memfd_create("ram")
    os.ftruncate(memfd, size)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    reserved = libc.mmap(None, size, 0, flags, -1, 0)
    access = mmap.PROT_READ | mmap.PROT_WRITE
    ram = libc.mmap(reserved, size, access, mmap.MAP_SHARED | MAP_FIXED, memfd, 0)
    answer("ready")
    for line in sys.stdin:
        operation, page, count, value = json.loads(line)
        if operation == "stop":
            return
        answer(do(operation, ram + page * PAGE, count, value))


def do(operation, address, count, value):
    if operation == "fill":
        ctypes.memset(address, value, count * PAGE)
    elif operation == "read":
        return [alike(ctypes.string_at(address + n * PAGE, PAGE)) for n in range(count)]
    elif libc.madvise(address, count * PAGE, MADVICE[operation]) != 0:
        return os.strerror(ctypes.get_errno())
    return None


def alike(data):
    return data[0] if data == data[:1] * PAGE else data.hex()


def answer(value):
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
