"""A page-fault handler as Firecracker's documentation has it, in a thread; knows nothing of ours.

It answers each fault with one page of an image, and a page that was removed with zeros. Everything
that it was sent is kept for tests to look at.
"""

import ctypes
import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading
from pathlib import Path
from typing import Self

UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_WAKE = 0xC028AA03, 0xC020AA04, 0x8010AA02
PAGEFAULT, REMOVE = 0x12, 0x15
MODE_WP = 2
PAGE = 4096
MESSAGE = struct.Struct("=QQQQ")


class PageHandler:
    """Listens at `path` from the start; closed, it lets go of every descriptor.

    heeds_wp: whether it knows the key `wp_async`.
    """

    def __init__(self, path: Path, image: bytes, *, heeds_wp: bool = True) -> None:
        self.path, self.image, self._heeds_wp = path, image, heeds_wp
        self.message = b""
        self.fds: list[int] = []
        self.peer_pid = 0
        self.served: list[int] = []  # offsets
        self.removed: set[int] = set()
        self.is_over = threading.Event()  # the VMM is gone
        self._error: BaseException | None = None
        self._connection = self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.fspath(path))
        self._listener.listen()
        self._end, self._ended = os.pipe()
        self._thread = threading.Thread(target=self._run)

    @property
    def mappings(self):
        return json.loads(self.message)

    @property
    def _faults(self) -> int:
        return self.fds[0]

    def stop(self) -> None:
        """No fault is answered from now on."""
        os.write(self._ended, b".")
        self._thread.join()

    def swallow(self) -> bool:
        """Read faults and forget them, as a handler that is killed does; whether there were any."""
        found = select.select([self._faults], [], [], 30)[0]
        return bool(found) and len(os.read(self._faults, MESSAGE.size * 64)) > 0

    def go_on(self) -> None:
        """Serve again; every fault that was not answered is sent again."""
        os.read(self._end, 1)
        for mapping in self.mappings:
            where = struct.pack("=QQ", mapping["base_host_virt_addr"], mapping["size"])
            fcntl.ioctl(self._faults, UFFDIO_WAKE, where)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.stop()
        for fd in (self._end, self._ended, *self.fds):
            os.close(fd)
        self._connection.close()
        self._listener.close()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            if not self.fds:
                if not self._waits_for(self._listener.fileno()):
                    return
                self._greet()
            while self._turn():
                pass
        except BaseException as error:  # noqa: BLE001 - raised by whoever closes it
            self._error = error

    def _greet(self) -> None:
        self._connection, _ = self._listener.accept()
        credentials = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.peer_pid = struct.unpack("=iII", credentials)[0]
        self.message, self.fds, _, _ = socket.recv_fds(self._connection, 65536, 8)

    def _waits_for(self, *fds: int) -> list[int]:
        """Those that are readable; none when it is to end."""
        found = select.select([self._end, *fds], [], [])[0]
        return [] if self._end in found else found

    def _turn(self) -> bool:
        connection = self._connection.fileno()
        found = self._waits_for(connection, self._faults)
        if connection in found and self._connection.recv(1) == b"":
            self.is_over.set()
            return False
        if found:
            self._serve()
        return bool(found)

    def _serve(self) -> None:
        """Removals first: a fault may come before the removal that led to it."""
        pending: list[int] = []
        self._drain(pending)
        while pending:
            try:
                self._install(pending[0])
                pending.pop(0)
            except BlockingIOError:  # a removal waits to be read
                self._drain(pending)

    def _drain(self, pending: list[int]) -> None:
        try:
            data = os.read(self._faults, MESSAGE.size * 64)
        except BlockingIOError:
            return
        for event, first, second, _ in MESSAGE.iter_unpack(data):
            if event & 0xFF == PAGEFAULT:
                pending.append(self._offset(second & ~(PAGE - 1)))
            elif event & 0xFF == REMOVE:
                start = self._offset(first)
                self.removed |= set(range(start, start + second - first, PAGE))

    def _offset(self, address: int) -> int:
        for mapping in self.mappings:
            base = mapping["base_host_virt_addr"]
            if base <= address < base + mapping["size"]:
                return address - base + mapping["offset"]
        raise AssertionError(f"{address:#x} is in no region")

    def _address(self, offset: int) -> int:
        for mapping in self.mappings:
            start = mapping["offset"]
            if start <= offset < start + mapping["size"]:
                return offset - start + mapping["base_host_virt_addr"]
        raise AssertionError(f"{offset:#x} is in no region")

    def _install(self, offset: int) -> None:
        address = self._address(offset)
        try:
            if offset in self.removed:
                fcntl.ioctl(
                    self._faults, UFFDIO_ZEROPAGE, struct.pack("=QQQq", address, PAGE, 0, 0)
                )
            else:
                page = ctypes.create_string_buffer(self.image[offset : offset + PAGE], PAGE)
                asked = self._heeds_wp and self.mappings[0].get("wp_async", False)
                mode = MODE_WP if asked else 0
                request = (address, ctypes.addressof(page), PAGE, mode, 0)
                fcntl.ioctl(self._faults, UFFDIO_COPY, struct.pack("=QQQQq", *request))
            self.served.append(offset)
        except OSError as error:
            if error.errno == errno.EEXIST:
                fcntl.ioctl(self._faults, UFFDIO_WAKE, struct.pack("=QQ", address, PAGE))
            elif error.errno != errno.ESRCH:
                raise
