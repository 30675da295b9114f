"""Disks for tests of drivers: bases of a few blocks, places as the host has them, bytes in and out
as a VMM moves them."""

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from wrennd.linux import devices
from wrennd.linux.devices import BlockDevice
from wrennd.storage.overlay import Driver, Given

MIB = 1 << 20
BLOCK = 4096


def superblock(blocks: int, *, mark: bytes = b"") -> bytes:
    """The first 4 KiB of an ext4 of `blocks` blocks of 4 KiB, as far as anybody here looks."""
    data = bytearray(BLOCK)
    struct.pack_into("<I", data, 1024 + 0x04, blocks)
    struct.pack_into("<I", data, 1024 + 0x18, 2)
    struct.pack_into("<H", data, 1024 + 0x38, 0xEF53)
    data[: len(mark)] = mark
    return bytes(data)


def make_base(path: Path, contents: dict[int, bytes], blocks: int, *, mark: bytes = b"") -> Path:
    """A read-only base of `blocks` blocks, with these contents by block; the others are holes."""
    with path.open("wb") as file:
        file.write(superblock(blocks, mark=mark))
        for number, data in contents.items():
            file.seek(number * BLOCK)
            file.write(data)
        file.truncate(blocks * BLOCK)
    path.chmod(0o444)
    return path


@dataclass
class Places:
    """Where disks and kept ones lie: each in a directory of its own, as those of sandboxes."""

    directory: Path
    driver: Driver
    given: dict[Path, Given] = field(default_factory=dict)
    count: int = 0

    def new(self) -> Path:
        """A disk's path, in the directory of a sandbox with an id."""
        self.count += 1
        home = self.directory / f"{self.count:020d}"
        home.mkdir()
        return home / "rootfs.ext4"

    def create(self, base: Path, *, disk_mib: int = 0) -> Path:
        disk = self.new()
        self.given[disk] = self.driver.create(base, disk, uid=os.getuid(), disk_mib=disk_mib)
        return disk

    def clone(self, kept: Path, *, disk_mib: int = 0) -> Path:
        disk = self.new()
        self.given[disk] = self.driver.clone(kept, disk, uid=os.getuid(), disk_mib=disk_mib)
        return disk

    def reopen(self, disk: Path) -> None:
        self.given[disk] = self.driver.reopen(disk, uid=os.getuid())

    def remove(self, disk: Path) -> None:
        self.driver.remove(disk)
        self.given.pop(disk, None)

    def remove_all(self) -> None:
        for disk in list(self.given):
            self.remove(disk)

    def write(self, disk: Path, at: int, data: bytes) -> None:
        write(self.given[disk], at, data)

    def read(self, disk: Path, at: int = 0, count: int | None = None) -> bytes:
        return read(self.given[disk], at, count)


def write(given: Given, at: int, data: bytes) -> None:
    if isinstance(given, BlockDevice):
        with devices.opened(given, os.O_RDWR) as fd:
            os.pwrite(fd, data, at)
        return
    with given.open("r+b") as file:
        file.seek(at)
        file.write(data)


def read(given: Given, at: int = 0, count: int | None = None) -> bytes:
    if isinstance(given, BlockDevice):
        with devices.opened(given, os.O_RDONLY) as fd:
            wanted = os.lseek(fd, 0, os.SEEK_END) - at if count is None else count
            return os.pread(fd, wanted, at)
    with given.open("rb") as file:
        file.seek(at)
        return file.read(-1 if count is None else count)


def sync(given: Given) -> None:
    """What a guest's fsync does."""
    if isinstance(given, BlockDevice):
        with devices.opened(given, os.O_RDWR) as fd:
            os.fsync(fd)
        return
    with given.open("rb") as file:
        os.fsync(file.fileno())
