"""What is known of the VMM that makes a snapshot, and of this host: the manifest's facts.

Asking a program for its version and reading all of it for its digest takes tens of milliseconds,
so answers are kept beside the probe's, for the file that they are of.
"""

import hashlib
import json
import platform
import re
from dataclasses import asdict
from pathlib import Path

from wrennd.core.errors import HostUnsuitable
from wrennd.linux import files, process
from wrennd.snapshot.manifest import VmmFacts
from wrennd.snapshot.validity import FIRECRACKER, QEMU, Here
from wrennd.vmm.program import QEMU_STATE_VERSION, Program

ASK_TIMEOUT_S = 20.0
# What `vm.BootSpec` asks for, in its order.
DEVICES = ("block", "net", "entropy")
_VERSION = re.compile(r"\bv?([0-9]+\.[0-9]+[0-9.]*)")


def of_program(program: Program, directory: Path) -> VmmFacts:
    """Facts on a VMM that could be started now; answers are kept in `directory`.

    Errors: HostUnsuitable when it does not say its version.
    """
    found = program.binary.stat()
    key = [str(program.binary), found.st_ino, found.st_size, found.st_mtime_ns]
    kept = directory / f"{program.name}.facts.json"
    try:
        answer = json.loads(kept.read_text())
        if answer["key"] == key:
            return decode(answer["facts"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    facts = _ask(program)
    files.write_atomic(kept, json.dumps({"key": key, "facts": asdict(facts)}).encode())
    return facts


def decode(value: dict[str, object]) -> VmmFacts:
    """Of what `asdict` made of it. Errors: TypeError, ValueError."""
    devices = value["devices"]
    if not isinstance(devices, list | tuple):
        raise ValueError(f"{devices!r} are no devices")
    texts = {name: str(text) for name, text in value.items() if name != "devices"}
    return VmmFacts(**texts, devices=tuple(str(device) for device in devices))


def _ask(program: Program) -> VmmFacts:
    snapshot_version = QEMU_STATE_VERSION
    if program.is_firecracker:
        snapshot_version = _say_version(program, "--snapshot-version")
    with program.binary.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return VmmFacts(
        kind=FIRECRACKER if program.is_firecracker else QEMU,
        version=_say_version(program, "--version"),
        binary=digest,
        snapshot_version=snapshot_version,
        devices=DEVICES,
    )


def _say_version(program: Program, option: str) -> str:
    said = process.run([program.binary, option], timeout_s=ASK_TIMEOUT_S).stdout
    found = _VERSION.search(said)
    if found is None:
        raise HostUnsuitable(f"{program.binary} {option} says no version: {said[:200]!r}")
    return found[1]


def here(program: Program, directory: Path, guest_kernel: str) -> Here:
    """This host, with that VMM."""
    return Here(
        vmm=of_program(program, directory),
        tier=program.tier,
        cpu_model=cpu_model(),
        host_kernel=platform.release(),
        guest_kernel=guest_kernel,
    )


def cpu_model(cpuinfo: str | None = None) -> str:
    """As /proc/cpuinfo names it."""
    text = Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else "unknown"


def program_name(facts: VmmFacts, tier: str) -> str:
    """What the program is called (`vmm/program.py`) that could restore a snapshot of these."""
    return FIRECRACKER if facts.kind == FIRECRACKER else f"{QEMU}-{tier}"
