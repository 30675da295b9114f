"""A tree of files becomes a sparse ext4 image, by mke2fs alone: nothing is mounted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wrennd.core.errors import ImageBroken
from wrennd.linux import userns
from wrennd.linux.process import CommandFailed, run

MAKE_TIMEOUT_S = 300.0
MAX_JOURNAL_MIB = 32
BYTES_PER_INODE = 16384
# Said in full, since defaults differ between releases of e2fsprogs and in the host's mke2fs.conf;
# every kernel since 4.4 knows all of them.
_FEATURES = (
    "none",
    "has_journal",
    "ext_attr",
    "resize_inode",
    "dir_index",
    "filetype",
    "extent",
    "64bit",
    "flex_bg",
    "sparse_super",
    "large_file",
    "huge_file",
    "dir_nlink",
    "extra_isize",
    "metadata_csum",
)


def make(tree: Path, image: Path, *, size_mib: int, label: str) -> None:
    """Write `image`, a disk of `size_mib`, with the files of `tree`: owners and modes as there.

    Errors: ImageBroken when the tree does not fit; CommandFailed.
    """
    with _explained(size_mib, label):
        run(_command(tree, image, size_mib, label), timeout_s=MAKE_TIMEOUT_S)


def make_unprivileged(work: Path, tree: str, image: str, *, size_mib: int, label: str) -> None:
    """As `make`, of a tree that is not trusted: names in `work`, owned by `linux/userns.py`'s root.

    Owners in the image are the tree's as that namespace sees them.
    """
    argv = _command(Path(tree), Path(image), size_mib, label)
    with _explained(size_mib, label):
        run(userns.wrapped(argv), timeout_s=MAKE_TIMEOUT_S, cwd=work)


def inodes(size_mib: int) -> int:
    """How many files, directories and links a disk of that size can have in all."""
    return (size_mib << 20) // BYTES_PER_INODE


def _command(tree: Path, image: Path, size_mib: int, label: str) -> tuple[str | Path, ...]:
    # The default for 4 GiB is twice the limit; blocks that were used are copied with the disk.
    journal_mib = min(MAX_JOURNAL_MIB, max(4, size_mib // 32))
    return (
        *("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256"),
        *("-i", str(BYTES_PER_INODE), "-O", ",".join(_FEATURES), "-m", "1"),
        *("-J", f"size={journal_mib}", "-L", label[:16]),
        # The file is new, so what is not written reads as zeros: no guest need wipe it later.
        *("-E", "root_owner=0:0,lazy_itable_init=1,assume_storage_prezeroed=1"),
        *("-d", tree, image, f"{size_mib}M"),
    )


@contextmanager
def _explained(size_mib: int, label: str) -> Iterator[None]:
    try:
        yield
    except CommandFailed as error:
        said = error.completed.stderr
        if "Could not allocate block" in said or "Could not allocate inode" in said:
            text = f"the files for {label!r} don't fit on a disk of {size_mib} MiB"
            raise ImageBroken(text, hint="raise disk_mib in its recipe") from error
        raise
