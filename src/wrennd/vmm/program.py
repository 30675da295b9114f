"""Which VMM programs there are, and what each needs in its root to run.

Pure but for looking at where this interpreter and its package lie. A `Program` says what to
execute; `vmm/launch.py` confines and starts it; `vmm/probe.py` chooses among them.
"""

import os
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import wrennd

QEMU = Path("/usr/bin/qemu-system-x86_64")
APP_IN_ROOT = "/app"
QEMU_STATE_VERSION = "1.0"  # of the state file that `qemu_vmm` writes


class Tier(StrEnum):
    """How isolated a guest is from the host."""

    KVM = "kvm"
    EMULATED = "emulated"


@dataclass(frozen=True, kw_only=True)
class Program:
    """A VMM that speaks Firecracker's API: `argv` plus `--api-sock PATH --id ID`.

    name: what `--vmm` and records call it. binary: what must be there and is digested.
    binds: (source, target) mounted read-only into its root. devices: nodes that it opens.
    needs_proc: whether it looks at its own processes (our server reads its QEMU's pages).
    """

    name: str
    tier: Tier
    binary: Path
    argv: tuple[str, ...]
    binds: tuple[tuple[str, str], ...]
    devices: tuple[str, ...]
    needs_proc: bool

    @property
    def is_firecracker(self) -> bool:
        return self.name == "firecracker"


def firecracker(binary: Path) -> Program:
    """The real one: a static binary, alone in its root."""
    return Program(
        name="firecracker",
        tier=Tier.KVM,
        binary=binary,
        argv=("/firecracker",),
        binds=((os.fspath(binary), "/firecracker"),),
        devices=("/dev/kvm", "/dev/net/tun", "/dev/userfaultfd", "/dev/null", "/dev/urandom"),
        needs_proc=False,
    )


def own_package() -> Path:
    """Where `wrennd` itself lies."""
    return Path(os.path.realpath(wrennd.__path__[0]))


def qemu(
    tier: Tier,
    binary: Path = QEMU,
    package: Path | None = None,
    *,
    has_exact_tracking: bool = True,
) -> Program:
    """Our Firecracker-compatible server on Debian's QEMU, on this very interpreter.

    package: our package, or a copy of it that any user can read (`vmm/package.py`).
    has_exact_tracking: false to find dirty pages as on kernels before 6.7.
    """
    accel = "kvm" if tier is Tier.KVM else "tcg"
    start = (
        f"import sys; sys.path.insert(0, {APP_IN_ROOT!r}); "
        "from wrennd.qemu_vmm.__main__ import main; sys.exit(main())"
    )
    devices = ("/dev/net/tun", "/dev/userfaultfd", "/dev/null", "/dev/zero", "/dev/urandom")
    tracking = () if has_exact_tracking else ("--dirty-pages", "populated")
    return Program(
        name=f"qemu-{tier}",
        tier=tier,
        binary=binary,
        argv=(os.fspath(interpreter()), "-I", "-S", "-B", "-c", start, "--accel", accel, *tracking),
        binds=_qemu_binds(package or own_package()),
        devices=(("/dev/kvm", *devices) if tier is Tier.KVM else devices),
        needs_proc=True,
    )


def interpreter() -> Path:
    """The interpreter itself, not a virtual environment's link to it."""
    return Path(os.path.realpath(sys.executable))


def _qemu_binds(package: Path) -> tuple[tuple[str, str], ...]:
    """Read-only pieces of the host: the loader and libraries, QEMU's data, Python, our package.

    /lib64 and /lib are links into /usr on Debian 12, made by `launch`.
    """
    same = [
        "/usr/lib",
        "/usr/lib64",
        "/usr/share/qemu",
        "/usr/share/seabios",
        "/etc/ld.so.cache",
        os.fspath(QEMU),
        os.fspath(interpreter()),
    ]
    prefix = Path(os.path.realpath(sys.base_prefix))
    if prefix != Path("/usr"):
        same.append(os.fspath(prefix / "lib"))
    pairs = [(path, path) for path in same if Path(path).exists()]
    return (*pairs, (os.fspath(package), f"{APP_IN_ROOT}/wrennd"))
