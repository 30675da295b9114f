"""Our package as a VMM's uid can read it.

`qemu_vmm` runs as a user of its own, on the very files of this installation. Where those are
readable by their owner alone (a checkout or an install under umask 077), it gets a copy.
"""

import hashlib
import os
import shutil
import stat
from pathlib import Path

PARTS = ("__init__.py", "core", "linux", "qemu_vmm")  # what `qemu_vmm` imports


def readable(package: Path, copies: Path) -> Path:
    """`package`, or a copy of its PARTS below `copies`, named by what it was made of."""
    files = sorted(_files(package))
    if all(_is_open(path) for path in (package, *files)):
        return package
    copy = copies / _digest(package, files)
    if not copy.exists():
        _copy(package, files, copy)
    return copy


def _files(package: Path) -> list[Path]:
    found = []
    for part in PARTS:
        path = package / part
        found += [path] if path.is_file() else [path, *path.rglob("*")]
    return [path for path in found if "__pycache__" not in path.parts]


def _is_open(path: Path) -> bool:
    mode = path.stat().st_mode
    wanted = 0o005 if stat.S_ISDIR(mode) else 0o004
    return mode & wanted == wanted


def _digest(package: Path, files: list[Path]) -> str:
    """Of names and stat data: a changed file has another size or time."""
    lines = []
    for path in files:
        found = path.stat()
        lines.append(f"{path.relative_to(package)} {found.st_size} {found.st_mtime_ns}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _copy(package: Path, files: list[Path], copy: Path) -> None:
    staging = copy.with_name(f"{copy.name}.{os.getpid()}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    for path in (package, *files):
        target = staging / path.relative_to(package)
        if path.is_dir():
            target.mkdir(parents=True)
            target.chmod(0o755)
        else:
            shutil.copyfile(path, target)
            target.chmod(0o644)
    try:
        staging.rename(copy)
    except OSError:  # somebody else was first
        shutil.rmtree(staging)
