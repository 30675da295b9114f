"""A guest's kernel and initrd, from Debian's kernel package. Reproducible: same package and
recipe, same bytes.

The package is unpacked, never installed. `vmlinux` is taken out of its compressed image, since
that is what Firecracker boots; the initrd holds busybox, the modules that the recipe names, and
`images/initrd-init.sh`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wrennd.core.errors import ImageBroken
from wrennd.images import bzimage, cpio, elf, recipe
from wrennd.images.apt import Apt, unpack
from wrennd.images.recipe import KernelRecipe

BUSYBOX_PACKAGE = "busybox-static"
BUSYBOX_FILE = "bin/busybox"
_IMAGE_PACKAGE = re.compile(r"linux-image-(\d.*)")
# Mounted by the initrd before anything else, and handed over to the root disk's init.
_EARLY_FSTAB = """\
proc /proc proc     nosuid,nodev,noexec      0 0
dev  /dev  devtmpfs nosuid,noexec,mode=755   0 0
"""
_DIRECTORIES = ("bin", "dev", "lib", "lib/modules", "proc", "root")


@dataclass(frozen=True, kw_only=True)
class Built:
    """release: as `uname -r` says it. package_version: Debian's."""

    release: str
    package_version: str


def build(recipe: KernelRecipe, apt: Apt, *, work: Path, vmlinux: Path, initrd: Path) -> Built:
    """Write `vmlinux` and `initrd`. `work` is scratch, left behind.

    Errors: HostUnsuitable (no such package), ImageBroken (it isn't what it should be).
    """
    meta = apt.package(recipe.package)
    names = [name for name in meta.depends if _IMAGE_PACKAGE.fullmatch(name)]
    if len(names) != 1:
        raise ImageBroken(f"{recipe.package} depends on {len(names)} kernels instead of one")
    packages = [apt.package(names[0]), apt.package(BUSYBOX_PACKAGE)]
    for path in apt.download(packages).values():
        unpack(path, work)
    apt.forget_older(packages)
    (image,) = (work / "boot").glob("vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    vmlinux.write_bytes(_extract(image))
    modules = load_order(_modules(work / "lib/modules" / release), recipe.modules)
    busybox = (work / BUSYBOX_FILE).read_bytes()
    initrd.write_bytes(make_initrd(release, busybox, modules))
    return Built(release=release, package_version=packages[0].version)


def _extract(image: Path) -> bytes:
    try:
        return bzimage.extract(image.read_bytes())
    except ValueError as error:
        raise ImageBroken(f"{image.name} can't be booted: {error}") from error


def _modules(directory: Path) -> dict[str, bytes]:
    """Every module below `directory` by name; the kernel spells names with underscores."""
    return {p.stem.replace("-", "_"): p.read_bytes() for p in directory.rglob("*.ko")}


def load_order(modules: dict[str, bytes], wanted: Sequence[str]) -> dict[str, bytes]:
    """The wanted modules and what they depend on, each after its dependencies.

    The package has no modules.dep (an installation makes it), but each module names what it needs.
    Errors: ImageBroken when one is missing.
    """
    ordered: dict[str, bytes] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in ordered:
            return
        if name not in modules or name in path:
            raise ImageBroken(f"the kernel package can't provide the module {name}")
        for needed in dependencies(modules[name]):
            add(needed, (*path, name))
        ordered[name] = modules[name]

    for name in wanted:
        add(name, ())
    return ordered


def dependencies(module: bytes) -> list[str]:
    """What a module (.ko) says it needs, from its section .modinfo."""
    for line in elf.section(module, ".modinfo").split(b"\0"):
        key, _, value = line.partition(b"=")
        if key == b"depends":
            return [name.replace("-", "_") for name in value.decode().split(",") if name]
    return []


def make_initrd(release: str, busybox: bytes, modules: dict[str, bytes]) -> bytes:
    """The archive, uncompressed: nothing is unpacked where the CPU is emulated."""
    directory = f"lib/modules/{release}"
    init = recipe.text("initrd-init.sh").replace("@MODULES@", " ".join(modules))
    entries = [cpio.directory(name) for name in (*_DIRECTORIES, directory)]
    entries += [
        cpio.file("init", init.encode(), 0o755),
        cpio.file("early.fstab", _EARLY_FSTAB.encode()),
        cpio.file(BUSYBOX_FILE, busybox, 0o755),
        # PID 1's own output, before there is a /dev.
        cpio.character_device("dev/console", 5, 1),
        # They are given in order, so this needs to say only where they are.
        cpio.file(f"{directory}/modules.dep", "".join(f"{m}.ko:\n" for m in modules).encode()),
    ]
    entries += [cpio.file(f"{directory}/{name}.ko", data) for name, data in modules.items()]
    return cpio.archive(entries)
