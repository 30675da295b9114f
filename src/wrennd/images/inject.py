"""What every image carries for us: /usr/lib/wrenn/ with init, busybox, interpreter and agent.

Goes into any tree of files, whatever distribution it is. It depends on nothing in the tree but the
directories that file systems are mounted on, which are made here where they are missing.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from wrennd.images import recipe
from wrennd.images.runtime import GUEST_PATH, Runtime

DIRECTORY = "usr/lib/wrenn"
_MOUNT_POINTS = {"dev": 0o755, "proc": 0o555, "run": 0o755, "sys": 0o555, "tmp": 0o1777}
assert f"/{DIRECTORY}/python" == GUEST_PATH


@dataclass(frozen=True, kw_only=True)
class Payload:
    """The parts, built once for all images. Files are only read, never changed.

    agent: envd.pyz. busybox: a static binary.
    """

    runtime: Runtime
    agent: Path
    busybox: Path


def inject(payload: Payload, tree: Path) -> None:
    """Put the payload into `tree`, in the place of an earlier one. Owner is whoever runs this."""
    fill(payload, make_room(tree))


def make_room(tree: Path) -> Path:
    """The empty directory in `tree` for our files; directories to mount on, where missing."""
    ours = tree / DIRECTORY
    if ours.is_symlink() or ours.is_file():
        ours.unlink()
    elif ours.exists():
        shutil.rmtree(ours)
    for missing in [path for path in (ours.parent.parent, ours.parent, ours) if not path.exists()]:
        missing.mkdir()
        missing.chmod(0o755)
    for name, mode in _MOUNT_POINTS.items():
        if not (tree / name).exists():
            (tree / name).mkdir()
            (tree / name).chmod(mode)
    return ours


def fill(payload: Payload, ours: Path) -> None:
    """Put the payload's files into a directory that is there, empty."""
    shutil.copytree(payload.runtime.path, ours / "python")
    shutil.copyfile(payload.agent, ours / "envd.pyz")
    shutil.copyfile(payload.busybox, ours / "busybox")
    (ours / "init").write_text(recipe.text("wrenn-init.sh"))
    (ours / "fstab").write_text(recipe.text("fstab"))
    for path in (ours, *ours.rglob("*")):
        path.chmod(0o755 if path.is_dir() or _is_program(path, ours) else 0o644)


def _is_program(path: Path, ours: Path) -> bool:
    programs = ("init", "busybox", "python/ld.so", "python/bin/python3")
    return str(path.relative_to(ours)) in programs
