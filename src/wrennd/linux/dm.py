"""Device-mapper by its ioctls (include/uapi/linux/dm-ioctl.h): devices made of others by tables.

No dmsetup, no libdevmapper: every call is one ioctl on /dev/mapper/control. udev is told, by the
flags in each event, to leave our devices alone: it makes no node or link for them, and does not
open them to see what is on them, which would be the guest's bytes, and would keep them busy.
"""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wrennd.linux.devices import BlockDevice, open_device

_CONTROL = (10, 236)  # misc device (include/linux/miscdevice.h, MAPPER_CTRL_MINOR)
MISC = Path("/proc/misc")
_VERSION = (4, 0, 0)  # of the interface that is spoken; the kernel's minor may be newer
NAME_LEN, UUID_LEN, MAX_TYPE_NAME = 128, 129, 16
SECTOR = 512

# version[3], data_size, data_start, target_count, open_count, flags, event_nr, padding, dev,
# name, uuid, data[7]
HEADER = struct.Struct(f"=3I2IIiIIIQ{NAME_LEN}s{UUID_LEN}s7s")
TARGET = struct.Struct(f"=QQiI{MAX_TYPE_NAME}s")  # sector_start, length, status, next, target_type
_NAME_ENTRY = struct.Struct("=QI")  # dev, next; the name follows

DM_VERSION, DM_LIST_DEVICES, DM_DEV_CREATE, DM_DEV_REMOVE = 0, 2, 3, 4
DM_DEV_SUSPEND, DM_DEV_STATUS, DM_TABLE_LOAD = 6, 7, 9
DM_TABLE_DEPS, DM_TABLE_STATUS, DM_GET_TARGET_VERSION = 11, 12, 17

DM_SUSPEND_FLAG, DM_STATUS_TABLE_FLAG, DM_ACTIVE_PRESENT_FLAG = 1 << 1, 1 << 4, 1 << 5
DM_BUFFER_FULL_FLAG, DM_NOFLUSH_FLAG = 1 << 8, 1 << 11

# libdm's flags for its udev rules, in the upper half of what the kernel passes on with an event.
# Rules of DM, of subsystems, of disks, of others, and libdm's own fallback: all switched off.
DM_UDEV_DISABLE_ALL = (0x0001 | 0x0002 | 0x0004 | 0x0008 | 0x0020) << 16

_BUFFER = 16 << 10
_MAX_BUFFER = 16 << 20


def number(command: int) -> int:
    """The ioctl's: _IOWR(0xfd, command, struct dm_ioctl)."""
    return (3 << 30) | (HEADER.size << 16) | (0xFD << 8) | command


@dataclass(frozen=True, kw_only=True)
class Target:
    """A line of a table: `length` sectors from `start` on are what `kind` makes of `params`."""

    start: int
    length: int
    kind: str
    params: str

    def __str__(self) -> str:
        return f"{self.start} {self.length} {self.kind} {self.params}"


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a device is at this moment. has_table: an active one."""

    name: str
    device: BlockDevice
    open_count: int
    is_suspended: bool
    has_table: bool


@dataclass(frozen=True, kw_only=True)
class Request:
    """What an ioctl is told. event: what is passed on with an event; targets: in `data`."""

    name: str = ""
    uuid: str = ""
    flags: int = 0
    event: int = 0
    data: bytes = b""
    targets: int = 0

    def __post_init__(self) -> None:
        for text, limit in ((self.name, NAME_LEN), (self.uuid, UUID_LEN)):
            if len(text.encode()) >= limit:
                raise ValueError(f"{text!r} is too long for device-mapper")

    def encode(self, size: int) -> bytes:
        """A struct dm_ioctl and what follows it, in a buffer of `size` bytes."""
        names = (self.name.encode(), self.uuid.encode(), b"")
        counts = (self.targets, 0, self.flags, self.event, 0, 0)
        head = HEADER.pack(*_VERSION, size, HEADER.size, *counts, *names)
        return (head + self.data).ljust(size, b"\0")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an ioctl left in its buffer."""

    target_count: int
    open_count: int
    flags: int
    dev: int
    name: str
    data: bytes

    @classmethod
    def decode(cls, buffer: bytes) -> Self:
        fields = HEADER.unpack_from(buffer)
        size, start, count, opens, flags, dev, name = (*fields[3:8], fields[10], fields[11])
        return cls(
            target_count=count,
            open_count=opens,
            flags=flags,
            dev=dev,
            name=_text(name),
            data=bytes(buffer[start:size]),
        )

    @property
    def info(self) -> Info:
        return Info(
            name=self.name,
            device=BlockDevice.from_dev(self.dev),
            open_count=self.open_count,
            is_suspended=bool(self.flags & DM_SUSPEND_FLAG),
            has_table=bool(self.flags & DM_ACTIVE_PRESENT_FLAG),
        )


class Control:
    """An open /dev/mapper/control. Safe to use from several threads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def target_version(self, kind: str) -> tuple[int, int, int]:
        """Of a kind of target, whose module is loaded if need be. Errors: OSError, EINVAL: none."""
        answer = self._call(DM_GET_TARGET_VERSION, Request(name=kind))
        major, minor, patch = struct.unpack_from("=3I", answer.data, 4)
        return major, minor, patch

    def names(self) -> dict[str, BlockDevice]:
        """All devices of the host."""
        return dict(decode_names(self._call(DM_LIST_DEVICES).data))

    def create(self, name: str, uuid: str) -> BlockDevice:
        """A device without a table. Errors: OSError, EBUSY when the name or UUID is taken."""
        return self._call(DM_DEV_CREATE, Request(name=name, uuid=uuid)).info.device

    def load(self, name: str, table: tuple[Target, ...]) -> None:
        """Give it a table, which `resume` makes the active one. Errors: OSError."""
        self._call(DM_TABLE_LOAD, Request(name=name, data=encode_table(table), targets=len(table)))

    def resume(self, name: str) -> None:
        """Let I/O go on, by the table that was loaded last. Errors: OSError, ENXIO: no device."""
        self._call(DM_DEV_SUSPEND, Request(name=name, event=DM_UDEV_DISABLE_ALL))

    def suspend(self, name: str) -> None:
        """Write out what is buffered, and hold back all I/O from now on. Errors: as of `resume`."""
        flags = DM_SUSPEND_FLAG
        self._call(DM_DEV_SUSPEND, Request(name=name, flags=flags, event=DM_UDEV_DISABLE_ALL))

    def remove(self, name: str) -> None:
        """Errors: OSError; EBUSY while somebody has it open, ENXIO when there is none."""
        self._call(DM_DEV_REMOVE, Request(name=name, event=DM_UDEV_DISABLE_ALL))

    def info(self, name: str) -> Info | None:
        """None when there is no such device."""
        try:
            return self._call(DM_DEV_STATUS, Request(name=name)).info
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise

    def depends_on(self, name: str) -> tuple[BlockDevice, ...]:
        """The devices that its table names. Errors: OSError, ENXIO."""
        return decode_deps(self._call(DM_TABLE_DEPS, Request(name=name)).data)

    def status(self, name: str) -> tuple[Target, ...]:
        """What each target says of itself, instead of its parameters. Errors: OSError, ENXIO.

        NOFLUSH: asking must not wait for the target's I/O.
        """
        answer = self._call(DM_TABLE_STATUS, Request(name=name, flags=DM_NOFLUSH_FLAG))
        return decode_targets(answer.data, answer.target_count)

    def table(self, name: str) -> tuple[Target, ...]:
        """The active table. Errors: OSError, ENXIO."""
        answer = self._call(DM_TABLE_STATUS, Request(name=name, flags=DM_STATUS_TABLE_FLAG))
        return decode_targets(answer.data, answer.target_count)

    def _call(self, command: int, request: "Request | None" = None) -> Answer:
        """One ioctl, with a buffer that grows until the answer fits."""
        request = request or Request()
        size = max(_BUFFER, HEADER.size + len(request.data))
        while True:
            buffer = bytearray(request.encode(size))
            fcntl.ioctl(self._fd, number(command), buffer)
            answer = Answer.decode(bytes(buffer))
            if not answer.flags & DM_BUFFER_FULL_FLAG:
                return answer
            size *= 4
            if size > _MAX_BUFFER:
                raise OSError(errno.ENOMEM, f"device-mapper's answer exceeds {_MAX_BUFFER} bytes")


def is_there() -> bool:
    """Whether device-mapper is in the kernel now; nothing is loaded to find out."""
    return "device-mapper" in MISC.read_text().split()


@contextmanager
def opened() -> Iterator[Control]:
    """Errors: OSError; ENOENT, ENXIO, ENODEV where the kernel has no device-mapper, EPERM, EACCES
    where we may not."""
    fd = open_device(stat.S_IFCHR, os.makedev(*_CONTROL), os.O_RDWR, name="mapper/control")
    try:
        yield Control(fd)
    finally:
        os.close(fd)


def encode_table(table: tuple[Target, ...]) -> bytes:
    """Structs dm_target_spec, each with its parameters, aligned to 8 bytes."""
    data = b""
    for target in table:
        params = target.params.encode() + b"\0"
        size = -(-(TARGET.size + len(params)) // 8) * 8
        head = TARGET.pack(target.start, target.length, 0, size, target.kind.encode())
        data += (head + params).ljust(size, b"\0")
    return data


def decode_targets(data: bytes, count: int) -> tuple[Target, ...]:
    """In answers `next` counts from the beginning of the data, not from the struct."""
    found, at = [], 0
    for _ in range(count):
        start, length, _status, next_at, kind = TARGET.unpack_from(data, at)
        params = _text(data[at + TARGET.size : next_at])
        found.append(Target(start=start, length=length, kind=_text(kind), params=params))
        at = next_at
    return tuple(found)


def decode_names(data: bytes) -> Iterator[tuple[str, BlockDevice]]:
    """A list of struct dm_name_list, each with the distance to the next; device 0: it is empty."""
    at = 0
    while at + _NAME_ENTRY.size <= len(data):
        dev, distance = _NAME_ENTRY.unpack_from(data, at)
        if dev:
            yield _text(data[at + _NAME_ENTRY.size :]), BlockDevice.from_dev(dev)
        if not distance:
            return
        at += distance


def decode_deps(data: bytes) -> tuple[BlockDevice, ...]:
    """A struct dm_target_deps."""
    (count,) = struct.unpack_from("=I", data)
    return tuple(BlockDevice.from_dev(dev) for dev in struct.unpack_from(f"={count}Q", data, 8))


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="replace")
