"""Make the snapshots that are kept here: one of each layout, in the format of today.

    python tests/artifacts/snapshots/make.py [DIRECTORY]

They are written from the values below and the encoders of the format alone, always the same bytes.
A released format's directory is never made again: it shows that what was written then is read now.
"""

import sys
import zlib
from array import array
from pathlib import Path

from wrennd.snapshot import checksums
from wrennd.snapshot.header import PAGE_SIZE, Header, memfile_name
from wrennd.snapshot.manifest import (
    MIB,
    Facts,
    FileFacts,
    Generation,
    Layout,
    Manifest,
    VmmFacts,
)
from wrennd.snapshot.sums import encode_sums

HERE = Path(__file__).parent
FORMAT = "format-1"
PAGES = MIB // PAGE_SIZE
BUILDS = ("00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100")
CREATED = ("2026-01-02T03:04:05+00:00", "2026-01-02T04:04:05+00:00")
# What the guest wrote before each pause: page -> the byte that fills it.
WRITTEN = ({0: 1, 1: 2, 2: 3, 100: 4, 255: 5}, {1: 0, 2: 6, 101: 7})
FACTS = Facts(
    vmm=VmmFacts(
        kind="qemu",
        version="7.2.22",
        binary="5f" * 16,
        snapshot_version="1",
        devices=("block", "net", "entropy"),
    ),
    tier="emulated",
    cpu_model="An emulated CPU",
    host_kernel="6.1.0-44-amd64",
    guest_kernel="6.1.0-44-cloud-amd64",
    template="base",
    sandbox="abcdefghij0123456789",
    overlay="copy",
    vcpus=1,
    mem_mib=1,
    extra={"dns": "192.0.2.53"},
)


def memory(generations: int) -> list[bytes]:
    """The guest's pages after that many pauses."""
    pages = [bytes(PAGE_SIZE)] * PAGES
    for written in WRITTEN[:generations]:
        for page, byte in written.items():
            pages[page] = bytes((byte,)) * PAGE_SIZE
    return pages


def chain_files() -> dict[str, bytes]:
    """Two generations; the second zeroes a page, replaces one and adds one."""
    table = bytearray(PAGES)
    for page in (0, 100, 255):
        table[page] = 1
    for page in (2, 101):
        table[page] = 2
    files = {"header": Header(BUILDS, bytes(table)).encode()}
    for build, written in zip(BUILDS, WRITTEN, strict=True):
        pages = [bytes((written.get(page, 0),)) * PAGE_SIZE for page in range(PAGES)]
        files[memfile_name(build)] = b"".join(pages)
    return files


def write(directory: Path, layout: Layout, memory_files: dict[str, bytes], count: int) -> None:
    """A snapshot of the guest after `count` pauses."""
    pages = memory(count)
    files = {
        **memory_files,
        "sums": encode_sums(array("I", map(zlib.crc32, pages))),
        "state": b"what the VMM wrote",
        "token": b"a token",
    }
    disk = b"a disk" + bytes(2 * MIB) + b"its end"
    generations = tuple(
        Generation(build=build, created=created, data_pages=data, zero_pages=zero)
        for build, created, data, zero in zip(BUILDS, CREATED, (5, 2), (0, 1), strict=True)
    )
    directory.mkdir(parents=True)
    (directory / "rootfs.ext4").write_bytes(disk)
    manifest = Manifest(
        layout=layout,
        created=CREATED[count - 1],
        facts=FACTS,
        generations=generations[:count],
        files={
            **{name: _facts(name, data) for name, data in files.items()},
            "rootfs.ext4": FileFacts(
                size=len(disk), checksum=checksums.of_disk(directory / "rootfs.ext4")
            ),
        },
    )
    files["manifest.json"] = manifest.encode()
    for name, data in files.items():
        (directory / name).write_bytes(data)


def _facts(name: str, data: bytes) -> FileFacts:
    is_memory = name.startswith("memfile")
    checksum = checksums.PAGES if is_memory else checksums.of_bytes(data)
    return FileFacts(size=len(data), checksum=checksum)


def main() -> None:
    target = (Path(sys.argv[1]) if len(sys.argv) > 1 else HERE) / FORMAT
    write(target / "chain", Layout.CHAIN, chain_files(), 2)
    write(target / "single", Layout.SINGLE, {"memfile": b"".join(memory(1))}, 1)


if __name__ == "__main__":
    main()
