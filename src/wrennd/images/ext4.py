"""A tree of files becomes a sparse ext4 image, by mke2fs alone: nothing is mounted."""

from pathlib import Path

from wrennd.core.errors import ImageBroken
from wrennd.linux.process import CommandFailed, run

MAKE_TIMEOUT_S = 300.0
MAX_JOURNAL_MIB = 32
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
    # The default for 4 GiB is twice the limit; blocks that were used are copied with the disk.
    journal_mib = min(MAX_JOURNAL_MIB, max(4, size_mib // 32))
    argv = (
        *("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384"),
        *("-O", ",".join(_FEATURES), "-m", "1", "-J", f"size={journal_mib}", "-L", label[:16]),
        # The file is new, so what is not written reads as zeros: no guest need wipe it later.
        *("-E", "root_owner=0:0,lazy_itable_init=1,assume_storage_prezeroed=1"),
        *("-d", tree, image, f"{size_mib}M"),
    )
    try:
        run(argv, timeout_s=MAKE_TIMEOUT_S)
    except CommandFailed as error:
        if "Could not allocate block" in error.completed.stderr:
            text = f"the files for {label!r} don't fit on a disk of {size_mib} MiB"
            raise ImageBroken(text, hint="raise disk_mib in its recipe") from error
        raise
