import pytest

from wrennd.core.errors import InvalidInput
from wrennd.host import firecracker


def elf(machine=0x3E, bits=2):
    return b"\x7fELF" + bytes([bits, 1]) + bytes(12) + machine.to_bytes(2, "little") + bytes(40)


def test_a_program_for_this_machine_passes(tmp_path):
    (tmp_path / "fc").write_bytes(elf())
    firecracker.check_is_program(tmp_path / "fc")


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", elf(machine=0xB7), elf(bits=1)])
def test_anything_else_is_refused_with_a_hint(tmp_path, data):
    (tmp_path / "fc").write_bytes(data)
    with pytest.raises(InvalidInput, match="not a program for x86-64") as caught:
        firecracker.check_is_program(tmp_path / "fc")
    assert "release archive" in caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidInput, match="missing can't be read"):
        firecracker.check_is_program(tmp_path / "missing")
