"""Small filesystems of a test's own: a tmpfs, or one on a loop device that goes with its mount."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wrennd.linux import process

MIB = 1 << 20
MAKE = {
    "ext4": ["mkfs.ext4", "-q"],
    "ext4-1k": ["mkfs.ext4", "-q", "-b", "1024"],
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
}


@contextmanager
def tmpfs(mount: Path, size_kib: int, *, huge: str = "never") -> Iterator[Path]:
    """huge: what pages it takes, see tmpfs(5)."""
    mount.mkdir()
    options = f"size={size_kib}k,mode=0700,huge={huge}"
    process.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", mount], timeout_s=60)
    try:
        yield mount
    finally:
        process.run(["umount", mount], timeout_s=60)


@contextmanager
def on_loop(directory: Path, kind: str, size_mib: int) -> Iterator[Path]:
    """Made in `directory`, as the file <kind>.img; mounted beside it."""
    image = directory / f"{kind}.img"
    with image.open("wb") as file:
        file.truncate(size_mib * MIB)
    process.run([*MAKE[kind], image], timeout_s=60)
    with mounted(image, directory / f"{kind}.mount") as mount:
        yield mount


@contextmanager
def mounted(image: Path, mount: Path) -> Iterator[Path]:
    mount.mkdir(exist_ok=True)
    process.run(["mount", "-o", "loop", image, mount], timeout_s=60)
    try:
        yield mount
    finally:
        process.run(["umount", mount], timeout_s=60)
