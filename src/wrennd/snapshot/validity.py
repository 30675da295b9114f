"""Where a snapshot can be restored: a pure comparison of what made it with what is here."""

from dataclasses import dataclass

from wrennd.snapshot.manifest import Facts, VmmFacts

FIRECRACKER = "firecracker"
QEMU = "qemu"


@dataclass(frozen=True, kw_only=True)
class Here:
    """This host, with the VMM that would restore the snapshot."""

    vmm: VmmFacts
    tier: str
    cpu_model: str
    host_kernel: str
    guest_kernel: str


@dataclass(frozen=True, kw_only=True)
class Compatibility:
    """Why a snapshot can't be restored here, and what is different but may be. Sentences."""

    refusals: tuple[str, ...]
    warnings: tuple[str, ...]


def compatible(facts: Facts, here: Here) -> Compatibility:
    """docs/snapshot-format.md, "What fits where", says why each is what it is."""
    refusals = (
        [f"it was made by {facts.vmm.kind}, and here is {here.vmm.kind}"]
        if facts.vmm.kind != here.vmm.kind
        else [*_vmm_refusals(facts.vmm, here.vmm), *_machine_refusals(facts, here)]
    )
    return Compatibility(refusals=tuple(refusals), warnings=tuple(_warnings(facts, here)))


def _vmm_refusals(made_by: VmmFacts, here: VmmFacts) -> list[str]:
    found = []
    if made_by.kind == FIRECRACKER:
        if not _fits(made_by.snapshot_version, here.snapshot_version):
            found.append(
                f"its Firecracker snapshot version is {made_by.snapshot_version}, "
                f"and Firecracker {here.version} here has {here.snapshot_version}"
            )
        return found
    if _series(made_by.version) != _series(here.version):
        found.append(
            f"it was made by QEMU {_series(made_by.version)}, and here is {_series(here.version)}"
        )
    if made_by.snapshot_version != here.snapshot_version:
        found.append(
            f"its state is of version {made_by.snapshot_version}, "
            f"and the VMM here writes {here.snapshot_version}"
        )
    if made_by.devices != here.devices:
        found.append(
            f"its machine has the devices {', '.join(made_by.devices)}, "
            f"and one here has {', '.join(here.devices)}"
        )
    return found


def _machine_refusals(facts: Facts, here: Here) -> list[str]:
    if facts.tier != here.tier:
        return [f"its guest was {facts.tier}, and one here is {here.tier}"]
    if facts.tier == "kvm" and facts.cpu_model != here.cpu_model:
        return [f"its guest saw the CPU {facts.cpu_model!r}, and this is {here.cpu_model!r}"]
    return []


def _warnings(facts: Facts, here: Here) -> list[str]:
    pairs = (
        ("the VMM's version", facts.vmm.version, here.vmm.version),
        ("the VMM's program", facts.vmm.binary, here.vmm.binary),
        ("the host's kernel", facts.host_kernel, here.host_kernel),
        ("the guest's kernel", facts.guest_kernel, here.guest_kernel),
        ("the CPU", facts.cpu_model, here.cpu_model),
    )
    return [f"{what} was {was}, and is {now}" for what, was, now in pairs if was != now]


def _fits(made: str, here: str) -> bool:
    """Firecracker loads its own major version, up to its own minor one."""
    try:
        made_major, made_minor = _numbers(made)
        major, minor = _numbers(here)
    except ValueError:
        return made == here
    return made_major == major and made_minor <= minor


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.lstrip("v").split(".")[:2]
    return int(major), int(minor)


def _series(version: str) -> str:
    return ".".join(version.split(".")[:2])
