"""How much of the host's disk something takes: blocks, not lengths, and each block once.

A disk of 4 GiB whose guest wrote 100 MiB takes 100 MiB, and a memory file that three snapshots
share by hard links takes its blocks once. Blocks that files share because one is a reflink of the
other count for each: the filesystem does not say cheaply which those are.
"""

import stat
from collections.abc import Iterable
from pathlib import Path

BLOCK_BYTES = 512  # of st_blocks, whatever the filesystem's own are (stat(2))


def disk_usage(path: Path) -> int:
    """Bytes that a file, or a directory with all below it, takes.

    As `disk_usage_of`.
    """
    return disk_usage_of([path])


def disk_usage_of(paths: Iterable[Path]) -> int:
    """Bytes that these take together, hard links between any of them counted once.

    Symlinks count themselves and are not followed; what is not there, or goes away meanwhile,
    counts nothing. Errors: OSError for what can't be read (PermissionError).
    """
    seen: set[tuple[int, int]] = set()
    total = 0
    todo = list(paths)
    while todo:
        path = todo.pop()
        try:
            found = path.lstat()
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            total += found.st_blocks * BLOCK_BYTES
            if stat.S_ISDIR(found.st_mode):
                todo.extend(path.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
    return total
