"""From a distribution's compressed x86 kernel (bzImage) to the ELF `vmlinux` inside it.

Pure: bytes in, bytes out. Field offsets are those of the kernel's x86 boot protocol,
Documentation/arch/x86/boot.rst. Errors: ValueError says what is wrong with the file.
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable

import lz4.block

from wrennd.images import elf

_SETUP_SECTS = 0x1F1
_BOOT_FLAG = 0x1FE
_HEADER_MAGIC = 0x202
_PROTOCOL = 0x206
_PAYLOAD = 0x248  # u32 offset from the protected-mode code, u32 length; since protocol 2.08
_SECTOR = 512

_LZ4_LEGACY_MAGIC = b"\x02\x21\x4c\x18"
_LZ4_LEGACY_BLOCK = 8 << 20
# The build appends the unpacked size as u32; it is no part of the compressed data. Except for gzip,
# whose own last field is just that.
_SIZE_TRAILER = 4

# An entry point for a hypervisor that starts the ELF file directly (PVH): without it neither
# QEMU's -kernel nor Firecracker's PVH path can boot the uncompressed kernel.
_XEN_ELFNOTE_PHYS32_ENTRY = 18


def extract(image: bytes) -> bytes:
    """The `vmlinux` of a bzImage: an ELF file that is known to have a PVH entry point."""
    payload = _payload(image)
    vmlinux = _decompress(payload)
    if not any(
        n.owner == "Xen" and n.kind == _XEN_ELFNOTE_PHYS32_ENTRY for n in elf.notes(vmlinux)
    ):
        raise ValueError("the kernel was built without CONFIG_PVH, so it can't be started directly")
    return vmlinux


def _payload(image: bytes) -> bytes:
    if len(image) < _PAYLOAD + 8 or image[_HEADER_MAGIC : _HEADER_MAGIC + 4] != b"HdrS":
        raise ValueError("not a Linux x86 boot image (no HdrS)")
    (protocol,) = struct.unpack_from("<H", image, _PROTOCOL)
    if image[_BOOT_FLAG : _BOOT_FLAG + 2] != b"\x55\xaa" or protocol < 0x208:
        raise ValueError(f"boot protocol {protocol >> 8}.{protocol & 0xFF:02} is older than 2.08")
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    setup_sectors = image[_SETUP_SECTS] or 4  # 0 means 4, from the days before the field
    start = (setup_sectors + 1) * _SECTOR + offset
    if length <= _SIZE_TRAILER or start + length > len(image):
        raise ValueError(f"the boot image is cut short: its payload ends at {start + length}")
    return image[start : start + length]


def _decompress(payload: bytes) -> bytes:
    name, unpack = _compression(payload)
    data = payload if name == "gzip" else payload[:-_SIZE_TRAILER]
    (expected,) = struct.unpack_from("<I", payload, len(payload) - _SIZE_TRAILER)
    try:
        unpacked = unpack(data)
    except (lz4.block.LZ4BlockError, lzma.LZMAError, zlib.error, OSError, EOFError) as error:
        raise ValueError(f"the kernel's {name} payload is corrupt: {error}") from error
    if len(unpacked) != expected:
        raise ValueError(f"the kernel unpacked to {len(unpacked)} bytes instead of {expected}")
    return unpacked


def _compression(payload: bytes) -> tuple[str, Callable[[bytes], bytes]]:
    known: tuple[tuple[bytes, str, Callable[[bytes], bytes] | None], ...] = (
        (_LZ4_LEGACY_MAGIC, "lz4", unpack_lz4_legacy),
        (b"\x1f\x8b", "gzip", lambda data: zlib.decompress(data, wbits=31)),
        (b"\xfd7zXZ\0", "xz", lzma.decompress),
        (b"\x5d\0\0", "lzma", lambda data: lzma.decompress(data, format=lzma.FORMAT_ALONE)),
        (b"BZh", "bzip2", bz2.decompress),
        (b"\x28\xb5\x2f\xfd", "zstd", None),
        (b"\x89LZO", "lzo", None),
    )
    for magic, name, unpack in known:
        if payload.startswith(magic):
            if unpack is None:
                raise ValueError(f"the kernel is compressed with {name}, which can't be unpacked")
            return name, unpack
    raise ValueError(f"unknown compression of the kernel (it begins with {payload[:8].hex()})")


def unpack_lz4_legacy(data: bytes) -> bytes:
    """LZ4's legacy frame: the magic, then blocks of u32 packed size and data, 8 MiB each."""
    unpacked = bytearray()
    at = len(_LZ4_LEGACY_MAGIC)
    while at < len(data):
        if at + 4 > len(data):
            raise ValueError("the kernel's lz4 payload is cut short")
        (size,) = struct.unpack_from("<I", data, at)
        block = data[at + 4 : at + 4 + size]
        if len(block) != size:
            raise ValueError("the kernel's lz4 payload is cut short")
        unpacked += lz4.block.decompress(block, uncompressed_size=_LZ4_LEGACY_BLOCK)
        at += 4 + size
    return bytes(unpacked)
