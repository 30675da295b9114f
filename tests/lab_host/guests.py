"""The lab's second disk: a data directory with the guests' kernel and images, built on this host.

Nothing is downloaded or built inside the lab. `<lab>/data-<digest>.ext4`; the digest is that of
what the test data directory of this host names at the moment.
"""

import hashlib
import os
import shutil
from pathlib import Path

from lab_host import recipe
from wrennd.images import ext4
from wrennd.linux.files import locked
from wrennd.linux.process import run
from wrennd.storage.images import ImageStore
from wrennd.storage.layout import INSTALLATION, Layout

# Room for the disks and snapshots of many sandboxes; a sparse file.
DATA_MIB = 24576
COPY_TIMEOUT_S = 300.0
INSTALLATION_ID = "lab000"


def prepared(lab: Path, layout: Layout) -> Path:
    """The disk with what `layout` holds. Never written to: each run has its own copy on write.

    Errors: as of the image store (NotFound, ImageBroken); CommandFailed.
    """
    lab.mkdir(parents=True, exist_ok=True)
    target = lab / f"data-{_digest(layout)}.ext4"
    with locked(lab / "data.lock"):
        if not target.exists():
            for old in lab.glob("data-*"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            staging = lab / "data-new"
            made = lab / "data-new.ext4"
            _copy(layout, staging)
            ext4.make(staging, made, size_mib=DATA_MIB, label="lab-data")
            shutil.rmtree(staging)
            made.rename(target)
    return target


def _copy(layout: Layout, staging: Path) -> None:
    """The published things, without cache, sandboxes and answers of probes."""
    store = ImageStore(layout)
    staging.mkdir(mode=0o700)
    (staging / INSTALLATION).write_text(INSTALLATION_ID + "\n")
    kernel = store.kernel().vmlinux.parent
    directories = {kernel: "kernels", **{i.rootfs.parent: "images" for i in store.list()}}
    for source, kind in directories.items():
        (staging / kind).mkdir(mode=0o700, exist_ok=True)
        copy: list[str | Path] = [
            "cp",
            "-a",
            "--reflink=auto",
            "--sparse=always",
            source,
            staging / kind,
        ]
        run(copy, timeout_s=COPY_TIMEOUT_S)
    (staging / "kernels" / layout.current_kernel.name).symlink_to(kernel.name)
    (staging / "names").mkdir(mode=0o700)
    for image in store.list():
        link = layout.image_name(image.name)
        (staging / "names" / image.name).symlink_to(os.readlink(link))  # noqa: PTH115 - as it is


def _digest(layout: Layout) -> str:
    store = ImageStore(layout)
    names = {image.name: image.digest for image in store.list()} | {"": store.kernel().digest}
    found = hashlib.sha256(repr(sorted(names.items())).encode())
    found.update((recipe.HERE / "guests.py").read_bytes())
    return found.hexdigest()[:16]
