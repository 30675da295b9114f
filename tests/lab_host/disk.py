"""The lab's root disk and kernel, by our own image builder: built when an input changed, then kept.

`<lab>/disk-<digest>/` holds `vmlinux`, `initrd.img` and `root.ext4`. It appears by a rename, under
a lock, so that two runs at the same time build it once.
"""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab_host import recipe
from wrennd.images import debian, ext4, kernel
from wrennd.images.apt import Apt
from wrennd.linux.files import locked
from wrennd.linux.process import CLEAN_ENVIRONMENT, run

Report = Callable[[str], None]

PIP_TIMEOUT_S = 900.0
CHROOT_TIMEOUT_S = 300.0
# Paths inside the lab.
LAB = Path("/lab")
TREE = LAB / "tree"
VENV = LAB / "venv"
SHIM = LAB / "shim"
WHEELS = LAB / "wheels"
# How pip and apt reach their registries on this host.
_PASSED = ("PIP_", "SSL_CERT", "REQUESTS_CA", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# What the package's own build reads.
_SOURCES = ("pyproject.toml", "README.md", "src")


@dataclass(frozen=True, kw_only=True)
class Disk:
    """The files that the lab boots from. They are never written to."""

    directory: Path

    @property
    def vmlinux(self) -> Path:
        return self.directory / "vmlinux"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.img"

    @property
    def root(self) -> Path:
        return self.directory / "root.ext4"


def prepared(lab: Path, report: Report) -> Disk:
    """The disk for the present inputs, below the directory `lab`.

    Errors: as of the image builder (HostUnsuitable, CommandFailed, TimeoutError).
    """
    target = lab / f"disk-{recipe.digest()}"
    lab.mkdir(parents=True, exist_ok=True)
    with locked(lab / "disk.lock"):
        if not target.exists():
            for old in lab.glob("disk-*/"):
                shutil.rmtree(old)
            staging = lab / f"{target.name}.tmp"
            staging.mkdir()
            _build(staging, lab / "apt", report)
            staging.rename(target)
    return Disk(directory=target)


def _build(staging: Path, apt_directory: Path, report: Report) -> None:
    work = staging / "work"
    tree = work / "tree"
    work.mkdir()
    disk = Disk(directory=staging)
    apt_directory.mkdir(mode=0o755, exist_ok=True)
    report("reading Debian's package lists")
    apt = Apt(apt_directory)
    report(f"unpacking {recipe.KERNEL.package}")
    unpacked = work / "kernel"
    built = kernel.build(
        recipe.KERNEL, apt, work=unpacked, vmlinux=disk.vmlinux, initrd=disk.initrd
    )
    report(f"installing Debian {apt.codename} with {len(recipe.PACKAGES)} packages")
    debian.build(recipe.image(), apt, tree=tree, work=work / "debian")
    _add_modules(tree, unpacked, built.release)
    report("installing the project's Python distributions")
    _add_python(tree)
    _add_init(tree)
    report("writing the disk")
    ext4.make(tree, disk.root, size_mib=recipe.ROOT_MIB, label="lab")
    shutil.rmtree(work)


def _add_modules(tree: Path, unpacked: Path, release: str) -> None:
    """All of the kernel's modules, with the index that modprobe and udev read."""
    shutil.copytree(unpacked / "lib/modules" / release, tree / "usr/lib/modules" / release)
    _inside(tree, "depmod", release)


def _add_python(tree: Path) -> None:
    """An environment as `make` makes it: the package editable, from where the tree will lie.

    The tree itself comes with each run; only what had to be compiled stays.
    """
    wheels = tree / WHEELS.relative_to("/")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", wheels]
    environment = CLEAN_ENVIRONMENT | {
        name: value for name, value in os.environ.items() if name.upper().startswith(_PASSED)
    }
    run([*pip, *recipe.requirements()], timeout_s=PIP_TIMEOUT_S, env=environment)
    sources = tree / TREE.relative_to("/")
    for name in _SOURCES:
        _copy(recipe.REPOSITORY / name, sources / name)
    _inside(tree, "python3", "-m", "venv", os.fspath(VENV))
    install = [os.fspath(VENV / "bin/pip"), "install", "--quiet", "--no-index"]
    _inside(tree, *install, "--find-links", os.fspath(WHEELS), *recipe.requirements())
    _inside(tree, *install, "--no-build-isolation", "--no-deps", "--editable", os.fspath(TREE))
    shim = tree / SHIM.relative_to("/")
    shim.mkdir()
    for built in (sources / "src/wrennd/qemu_vmm").glob("*.so"):
        built.rename(shim / built.name)
    shutil.rmtree(sources)
    shutil.rmtree(wheels)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
        shutil.copytree(source, target, ignore=ignore)
    else:
        shutil.copy(source, target)


def _add_init(tree: Path) -> None:
    target = tree / LAB.relative_to("/") / "first-init"
    shutil.copy(recipe.HERE / "inside" / "first-init.sh", target)
    target.chmod(0o755)
    (tree / "etc/hostname").write_text("lab\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost lab\n")


def _inside(tree: Path, *argv: str) -> None:
    """Run a program of the lab's tree in it. It is Debian's and ours, and may be trusted."""
    run(["chroot", os.fspath(tree), *argv], timeout_s=CHROOT_TIMEOUT_S)
