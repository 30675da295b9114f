"""Take a Firecracker release binary: look at it, boot a guest with it, keep it."""

import shutil
from pathlib import Path

from wrennd.core.errors import HostUnsuitable, InvalidInput
from wrennd.storage.layout import Layout
from wrennd.vmm import probe
from wrennd.vmm.probe import Guest
from wrennd.vmm.program import firecracker

ELF_X86_64 = (b"\x7fELF\x02\x01", b"\x3e\x00")  # 64-bit, little endian; e_machine at 18


def take(file: Path, layout: Layout, guest: Guest) -> Path:
    """Copy `file` into the data directory if a guest boots with it.

    Errors: InvalidInput when it is no such program; HostUnsuitable when KVM is not usable here or
    no guest boots. After an error the binary that was there before is still there.
    """
    check_is_program(file)
    made = layout.firecracker.with_suffix(".tmp")
    try:
        shutil.copyfile(file, made)
        made.chmod(0o555)
        program = firecracker(made)
        problem = probe.missing(program) or probe.boot_problem(program, guest)
        if problem:
            raise HostUnsuitable(
                f"{file} was not taken: {problem}",
                hint="without it, sandboxes run on QEMU; wrenn doctor says how",
            )
        made.rename(layout.firecracker)
    finally:
        made.unlink(missing_ok=True)
    return layout.firecracker


def check_is_program(file: Path) -> None:
    try:
        with file.open("rb") as opened:
            head = opened.read(20)
    except OSError as error:
        raise InvalidInput(f"{file} can't be read: {error.strerror}") from error
    if not head.startswith(ELF_X86_64[0]) or head[18:20] != ELF_X86_64[1]:
        raise InvalidInput(
            f"{file} is not a program for x86-64",
            hint="give the file firecracker-vX.Y.Z-x86_64 out of a release archive",
        )
