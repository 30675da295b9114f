"""Take a Firecracker release binary: look at it, boot a guest with it, keep it."""

import shutil
from pathlib import Path

from wrennd.core.errors import HostUnsuitable, InvalidInput
from wrennd.images import elf
from wrennd.storage.layout import Layout
from wrennd.vmm import probe
from wrennd.vmm.probe import MIN_VERSION, Guest
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
                hint=f"Firecracker {MIN_VERSION} or newer is taken where KVM works; without it, "
                "sandboxes run on QEMU",
            )
        made.rename(layout.firecracker)
    finally:
        made.unlink(missing_ok=True)
    return layout.firecracker


def check_is_program(file: Path) -> None:
    """Errors: InvalidInput, when it can't be read or can't be a Firecracker release."""
    hint = "give the file firecracker-vX.Y.Z-x86_64 out of a release archive"
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} can't be read: {error.strerror}") from error
    if not data.startswith(ELF_X86_64[0]) or data[18:20] != ELF_X86_64[1]:
        raise InvalidInput(f"{file} is not a program for x86-64", hint=hint)
    try:
        loader = elf.interpreter(data)
    except ValueError as error:
        raise InvalidInput(f"{file} is not a whole program: {error}", hint=hint) from error
    if loader:  # it would be alone in its root, without loader and libraries
        raise InvalidInput(f"{file} is not a static program: it needs {loader}", hint=hint)
