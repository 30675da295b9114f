"""Character devices that VMMs use, as (path, major, minor) found on this host."""

import os
import stat
from pathlib import Path


def node(path: str) -> tuple[str, int, int]:
    """The device's numbers. Errors: FileNotFoundError; OSError when it is no character device."""
    found = Path(path).stat()
    if not stat.S_ISCHR(found.st_mode):
        raise OSError(f"{path} is not a character device")
    return (path, os.major(found.st_rdev), os.minor(found.st_rdev))


def nodes(*paths: str) -> tuple[tuple[str, int, int], ...]:
    """Those of `paths` that exist here."""
    return tuple(node(path) for path in paths if Path(path).exists())
