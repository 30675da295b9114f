"""Loop devices as the kernel keeps them, without the kernel: `linux/loop.py` for a registry.

A descriptor that it hands out is the reading end of a pipe, so it learns from the writing end when
that was closed, whoever did it: a device whose last user went is gone, as with AUTOCLEAR.
"""

import errno
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass, field

from wrennd.linux.devices import BlockDevice
from wrennd.linux.loop import LoopStatus


@dataclass
class _Device:
    status: LoopStatus
    pins: list[int] = field(default_factory=list)  # writing ends
    holders: set[str] = field(default_factory=set)


class FakeLoops:
    """size: how many devices there can be. `hold` and `drop` are what device-mapper does."""

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._devices: dict[int, _Device] = {}
        self._opened: dict[int, int] = {}
        self.made = 0

    def attach(
        self, file: int, *, read_only: bool, offset: int = 0, size_limit: int = 0, name: str = ""
    ) -> tuple[int, BlockDevice]:
        self._clear()
        free = next((n for n in range(self._size) if n not in self._devices), None)
        if free is None:
            raise OSError(errno.ENOSPC, "no loop device is left")
        found = os.fstat(file)
        self._devices[free] = _Device(
            LoopStatus(
                number=free,
                dev=found.st_dev,
                inode=found.st_ino,
                offset=offset,
                size_limit=size_limit,
                is_read_only=read_only,
                name=name,
            )
        )
        self.made += 1
        return self._pin(free), BlockDevice(7, free)

    def open_loop(self, number: int, *, read_only: bool = True) -> int:
        self._clear()
        if number not in self._devices:
            raise OSError(errno.ENXIO, "no such device")
        return self._pin(number)

    def status(self, fd: int) -> LoopStatus:
        return self._devices[self._opened[fd]].status

    def numbers(self, *, read_only: bool | None = None) -> Iterator[int]:
        self._clear()
        for number, device in list(self._devices.items()):
            if read_only in (None, device.status.is_read_only):
                yield number

    def holders(self, number: int) -> frozenset[str]:
        return frozenset(self._devices[number].holders)

    def hold(self, device: BlockDevice, name: str) -> None:
        self._devices[device.minor].holders.add(name)

    def drop(self, name: str) -> None:
        for device in self._devices.values():
            device.holders.discard(name)

    def close(self) -> None:
        for device in self._devices.values():
            for pin in device.pins:
                os.close(pin)

    def _pin(self, number: int) -> int:
        fd, pin = os.pipe()
        self._devices[number].pins.append(pin)
        self._opened[fd] = number
        return fd

    def _clear(self) -> None:
        for number, device in list(self._devices.items()):
            for pin in list(device.pins):
                if _is_unread(pin):
                    os.close(pin)
                    device.pins.remove(pin)
            if not device.pins and not device.holders:
                del self._devices[number]


def _is_unread(pin: int) -> bool:
    """Whether nobody has the other end of a pipe any more."""
    poll = select.poll()
    poll.register(pin, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
