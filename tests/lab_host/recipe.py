"""What is on the lab's own disk: Debian packages, the kernel's modules, Python distributions.

Everything that a run needs besides the working tree, the guests' images and the order what to do.
"""

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import wrennd
from wrennd.images.recipe import Builder, ImageRecipe, KernelRecipe

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

# What the product runs on, what its tests need, and what shows what a test left.
PACKAGES = (
    "busybox-static",
    "dmsetup",
    "e2fsprogs",
    "gcc",
    "iproute2",
    "iptables",
    "kmod",
    "libc6-dev",
    "mmdebstrap",
    "mount",
    "nftables",
    "procps",
    "psmisc",
    "python3",
    "python3-dev",
    "python3-venv",
    "qemu-system-x86",
    "strace",
    "udev",
    "util-linux",
    "xfsprogs",
)
ROOT_MIB = 8192
# Debian's stock kernel: that of its servers, not the one that the guests have.
KERNEL = KernelRecipe(
    package="linux-image-amd64",
    # What reaches the disk; udev loads the rest from there. ext4 asks for its checksum by name,
    # which needs a modprobe that the initrd does not have.
    modules=("crc32c_generic", "virtio_pci", "virtio_blk", "ext4"),
)
# Of the extra `dev`, what no test calls in there.
_NOT_INSIDE = (
    *("buf-bin", "protoc-gen-py", "protoc-gen-connectrpc", "mypy", "ruff"),
    *("playwright", "psycopg", "pytest-xdist", "schemathesis"),
)
_INPUTS = (
    HERE / "recipe.py",
    HERE / "disk.py",
    HERE / "inside" / "first-init.sh",
    REPOSITORY / "src/wrennd/qemu_vmm/ram_shim.c",
)
_BUILDERS = ("accounts.py", "bzimage.py", "cpio.py", "debian.py", "ext4.py", "kernel.py")


def image() -> ImageRecipe:
    return ImageRecipe(
        file=HERE / "recipe.py",
        name="lab",
        builder=Builder.DEBIAN,
        disk_mib=ROOT_MIB,
        users=(),
        packages=PACKAGES,
    )


def requirements() -> list[str]:
    """The distributions that the project, its build and its tests need, as pip names them."""
    declared = _declared()
    project = declared["project"]
    wanted = [*declared["build-system"]["requires"], *project["dependencies"]]
    wanted += project["optional-dependencies"]["dev"]
    return [text for text in wanted if _name(text) not in _NOT_INSIDE]


def digest() -> str:
    """Of our own inputs: another one means that the disk must be built anew."""
    declared = _declared()
    scripts, modules = declared["project"]["scripts"], declared["tool"]["setuptools"]["ext-modules"]
    package = [requirements(), scripts, modules]
    found = hashlib.sha256(json.dumps(package, sort_keys=True).encode())
    builders = Path(wrennd.__path__[0]) / "images"
    for path in (*_INPUTS, *(builders / name for name in _BUILDERS)):
        data = path.read_bytes()
        found.update(f"{path.name} {len(data)}\n".encode() + data)
    return found.hexdigest()[:16]


def _declared() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return found[0].lower()
