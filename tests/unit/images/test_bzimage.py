import bz2
import gzip
import lzma
import struct

import lz4.block
import pytest

from elf_files import note, pvh_kernel, with_notes
from wrennd.images import bzimage

KERNEL = pvh_kernel(padding=5000)


def lz4_legacy(data: bytes, block: int = 8 << 20) -> bytes:
    packed = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), block):
        one = lz4.block.compress(data[at : at + block], store_size=False)
        packed += struct.pack("<I", len(one)) + one
    return packed


def boot_image(payload: bytes, *, protocol: int = 0x20F, setup_sectors: int = 2) -> bytes:
    """A bzImage with nothing in it but its header and a payload, 16 bytes into the code."""
    head = bytearray((setup_sectors or 4) * 512 + 512)
    head[0x1F1] = setup_sectors
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, protocol)
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + bytes(16) + payload + b"after"


def with_size(packed: bytes, size: int = len(KERNEL)) -> bytes:
    return packed + struct.pack("<I", size)


@pytest.mark.parametrize(
    "payload",
    [
        with_size(lz4_legacy(KERNEL)),
        gzip.compress(KERNEL, mtime=0),  # its own last field is the size
        with_size(lzma.compress(KERNEL)),
        with_size(lzma.compress(KERNEL, format=lzma.FORMAT_ALONE)),
        with_size(bz2.compress(KERNEL)),
    ],
    ids=["lz4", "gzip", "xz", "lzma", "bzip2"],
)
def test_the_kernel_comes_out_of_each_compression(payload):
    assert bzimage.extract(boot_image(payload)) == KERNEL


def test_lz4_of_several_blocks():
    data = bytes(range(256)) * (9 << 12)  # 9 MiB: more than one block
    assert bzimage.unpack_lz4_legacy(lz4_legacy(data)) == data


def test_no_setup_sectors_means_four():
    image = boot_image(with_size(lz4_legacy(KERNEL)), setup_sectors=0)
    assert bzimage.extract(image) == KERNEL


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"", "not a Linux"),
        (bytes(2000), "not a Linux"),
        (boot_image(with_size(lz4_legacy(KERNEL)), protocol=0x207), "2.07"),
        (boot_image(with_size(lz4_legacy(KERNEL)))[:1600], "cut short"),
        (boot_image(with_size(b"\x28\xb5\x2f\xfd....")), "zstd"),
        (boot_image(with_size(b"\x89LZO....")), "lzo"),
        (boot_image(with_size(b"????????")), "unknown compression"),
        (boot_image(with_size(lz4_legacy(KERNEL), size=7)), "instead of 7"),
        (boot_image(with_size(lz4_legacy(KERNEL)[:-9])), "cut short"),
        (boot_image(with_size(lzma.compress(KERNEL)[:-20])), "xz payload is corrupt"),
        (boot_image(with_size(lz4_legacy(b"x" * 100), size=100)), "ELF"),
    ],
)
def test_what_can_not_be_a_kernel_is_refused_with_the_reason(image, said):
    with pytest.raises(ValueError, match=said):
        bzimage.extract(image)


def test_a_kernel_without_pvh_is_refused():
    kernel = with_notes(note("Xen", 6, b"linux\0"))
    payload = with_size(lz4_legacy(kernel), size=len(kernel))
    with pytest.raises(ValueError, match="PVH"):
        bzimage.extract(boot_image(payload))
