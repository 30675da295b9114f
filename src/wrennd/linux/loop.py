"""Loop devices: files as block devices (include/uapi/linux/loop.h).

Every device made here has LO_FLAGS_AUTOCLEAR from its first moment: it goes with whoever has it
open last, be that a process, a mount, or a device-mapper table. So nothing of a killed process
is left, and there is no call here that detaches one.
"""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from wrennd.linux import devices
from wrennd.linux.devices import BlockDevice, open_device

LOOP_MAJOR = 7
_CONTROL = (10, 237)  # misc device (include/linux/miscdevice.h, LOOP_CTRL_MINOR)
LOOP_GET_STATUS64 = 0x4C05
LOOP_CONFIGURE = 0x4C0A  # Linux 5.8
LOOP_CTL_GET_FREE = 0x4C82
LO_FLAGS_READ_ONLY, LO_FLAGS_AUTOCLEAR = 1, 4
LO_NAME_SIZE = 64
BLOCK_SIZE = 512  # of the device; its file may have larger ones
SYS_BLOCK = Path("/sys/block")

# lo_device, lo_inode, lo_rdevice, lo_offset, lo_sizelimit, lo_number, lo_encrypt_type,
# lo_encrypt_key_size, lo_flags, lo_file_name, lo_crypt_name, lo_encrypt_key, lo_init
INFO64 = struct.Struct("=QQQQQIIII64s64s32s2Q")
CONFIG = struct.Struct(f"=II{INFO64.size}s8Q")  # fd, block_size, info, reserved
# Between asking for a free number and taking it, another process may have it.
_TRIES = 100


@dataclass(frozen=True, kw_only=True)
class LoopStatus:
    """What a loop device shows. dev, inode: of its file. size_limit: 0 for all of the file."""

    number: int
    dev: int
    inode: int
    offset: int = 0
    size_limit: int = 0
    is_read_only: bool = False
    is_autoclear: bool = True
    name: str = ""

    @property
    def device(self) -> BlockDevice:
        return BlockDevice(LOOP_MAJOR, self.number)

    @classmethod
    def decode(cls, data: bytes) -> "LoopStatus":
        dev, inode, _, offset, limit, number, _, _, flags, name, *_ = INFO64.unpack(data)
        return cls(
            number=number,
            dev=dev,  # the kernel's huge_encode_dev is libc's makedev
            inode=inode,
            offset=offset,
            size_limit=limit,
            is_read_only=bool(flags & LO_FLAGS_READ_ONLY),
            is_autoclear=bool(flags & LO_FLAGS_AUTOCLEAR),
            name=name.split(b"\0", 1)[0].decode(errors="replace"),
        )


def encode_config(
    file: int, *, read_only: bool, offset: int = 0, size_limit: int = 0, name: str = ""
) -> bytes:
    """A struct loop_config. Errors: ValueError when the name is too long."""
    label = name.encode()
    if len(label) >= LO_NAME_SIZE:
        raise ValueError(f"the name {name!r} of a loop device is too long")
    flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_READ_ONLY if read_only else 0)
    info = INFO64.pack(0, 0, 0, offset, size_limit, 0, 0, 0, flags, label, b"", b"", 0, 0)
    return CONFIG.pack(file, BLOCK_SIZE, info, *(0,) * 8)


def attach(
    file: int, *, read_only: bool, offset: int = 0, size_limit: int = 0, name: str = ""
) -> tuple[int, BlockDevice]:
    """A new device on the open file: a descriptor of it, which the caller owns, and its numbers.

    It is there until the last descriptor of it is closed. Errors: OSError; ENOSPC, ENODEV when
    there are no more devices, ENOENT, ENXIO, EPERM where there are none at all.
    """
    config = encode_config(
        file, read_only=read_only, offset=offset, size_limit=size_limit, name=name
    )
    for _ in range(_TRIES):
        number = _free_number()
        fd = open_loop(number, read_only=read_only)
        try:
            fcntl.ioctl(fd, LOOP_CONFIGURE, config)
        except OSError as error:
            os.close(fd)
            if error.errno != errno.EBUSY:
                raise
            continue
        return fd, BlockDevice(LOOP_MAJOR, number)
    raise OSError(errno.EBUSY, "others took every free loop device")


def _free_number() -> int:
    """A number that nobody uses now; its device is made if need be."""
    control = open_device(stat.S_IFCHR, os.makedev(*_CONTROL), os.O_RDWR, name="loop-control")
    try:
        return fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    finally:
        os.close(control)


def open_loop(number: int, *, read_only: bool = True) -> int:
    """A descriptor of the device, which keeps it as it is. Errors: OSError, ENXIO without one."""
    flags = os.O_RDONLY if read_only else os.O_RDWR
    return open_device(stat.S_IFBLK, os.makedev(LOOP_MAJOR, number), flags, name=f"loop{number}")


def node_of(device: BlockDevice) -> AbstractContextManager[Path]:
    """A path of a loop device, for the length of a block. Errors: OSError."""
    return devices.node_of(device, name=f"loop{device.minor}")


def status(fd: int) -> LoopStatus:
    """Errors: OSError, ENXIO when the device has no file (any more)."""
    return LoopStatus.decode(fcntl.ioctl(fd, LOOP_GET_STATUS64, bytes(INFO64.size)))


def numbers(*, read_only: bool | None = None) -> Iterator[int]:
    """Of the devices that have a file, or of those of them that are read-only, or are not."""
    for found in SYS_BLOCK.glob("loop*/loop"):
        try:
            is_read_only = (found.parent / "ro").read_text().strip() == "1"
        except FileNotFoundError:
            continue  # it went away
        if read_only in (None, is_read_only):
            yield int(found.parent.name.removeprefix("loop"))


def holders(number: int) -> frozenset[str]:
    """Names of the block devices that are made of it: `dm-3`."""
    try:
        return frozenset(found.name for found in (SYS_BLOCK / f"loop{number}/holders").iterdir())
    except FileNotFoundError:
        return frozenset()


def check_control() -> None:
    """Whether loop devices can be made here. Errors: OSError."""
    os.close(open_device(stat.S_IFCHR, os.makedev(*_CONTROL), os.O_RDWR, name="loop-control"))
