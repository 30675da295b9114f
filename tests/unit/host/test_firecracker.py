import struct

import pytest

from wrennd.core.errors import InvalidInput
from wrennd.host import firecracker


def elf(machine=0x3E, bits=2, loader=""):
    """A program of one segment."""
    text = loader.encode() + b"\0"
    kind = 3 if loader else 1
    return (
        b"\x7fELF"
        + bytes([bits, 1])
        + bytes(10)
        + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        + struct.pack("<IIQQQQQQ", kind, 4, 120, 0, 0, len(text), len(text), 1)
        + text
    )


def test_a_program_for_this_machine_passes(tmp_path):
    (tmp_path / "fc").write_bytes(elf())
    firecracker.check_is_program(tmp_path / "fc")


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", elf(machine=0xB7), elf(bits=1)])
def test_anything_else_is_refused_with_a_hint(tmp_path, data):
    (tmp_path / "fc").write_bytes(data)
    with pytest.raises(InvalidInput, match="not a program for x86-64") as caught:
        firecracker.check_is_program(tmp_path / "fc")
    assert "release archive" in caught.value.hint


def test_a_program_that_needs_a_loader_is_refused_by_its_name(tmp_path):
    (tmp_path / "fc").write_bytes(elf(loader="/lib64/ld-linux.so"))
    with pytest.raises(InvalidInput, match=r"not a static program: it needs /lib64/ld-linux.so"):
        firecracker.check_is_program(tmp_path / "fc")


def test_half_a_program_is_refused(tmp_path):
    (tmp_path / "fc").write_bytes(elf()[:100])
    with pytest.raises(InvalidInput, match="not a whole program"):
        firecracker.check_is_program(tmp_path / "fc")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidInput, match="missing can't be read"):
        firecracker.check_is_program(tmp_path / "missing")
