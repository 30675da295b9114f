"""What things are made from, as a digest: whether one that is here would come out different today.

Only of our own inputs (recipes, scripts, agent, the building code itself), not of Debian's
packages: a newer package alone makes nothing stale.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from wrennd.images.recipe import ImageRecipe

_HERE = Path(__file__).parent
_DIGEST_LENGTH = 16
_KERNEL = ("kernel.py", "bzimage.py", "cpio.py", "recipes/kernel.toml", "recipes/initrd-init.sh")
_RUNTIME = ("runtime.py", "compile_sources.py", "recipes/runtime.toml")
_PAYLOAD = ("agent.py", "inject.py", "ext4.py", "recipes/wrenn-init.sh", "recipes/fstab")
_TREE = ("accounts.py", "debian.py", "busybox.py")


def of_kernel() -> str:
    return _digest(_HERE / name for name in _KERNEL)


def of_runtime() -> str:
    """Of the interpreter that guests carry."""
    return _digest(_HERE / name for name in _RUNTIME)


def of_tree(image: ImageRecipe) -> str:
    """Of an image's files without ours."""
    return _digest([*(_HERE / name for name in _TREE), image.file])


def of_image(image: ImageRecipe) -> str:
    """Of an image as a whole: its tree, and what we put into it, the guest agent first of all."""
    agent = sorted((_HERE.parent / "envd").rglob("*.py"))
    payload = _digest([*(_HERE / name for name in _PAYLOAD), *agent])
    parts = f"{of_tree(image)} {of_runtime()} {payload}"
    return hashlib.sha256(parts.encode()).hexdigest()[:_DIGEST_LENGTH]


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        data = path.read_bytes()
        digest.update(f"{path.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:_DIGEST_LENGTH]
