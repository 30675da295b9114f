"""Small ELF files made for tests: with notes, as a kernel has them, and sections, as a module."""

import struct

_FILE = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")


def note(owner: str, kind: int, data: bytes) -> bytes:
    name = owner.encode() + b"\0"
    padded = name + b"\0" * (-len(name) % 4) + data + b"\0" * (-len(data) % 4)
    return struct.pack("<III", len(name), len(data), kind) + padded


def with_notes(notes: bytes) -> bytes:
    """An ELF file with one note segment."""
    at = _FILE.size + _PROGRAM.size
    return (
        _header(program_at=_FILE.size, programs=1)
        + _PROGRAM.pack(4, 4, at, 0, 0, len(notes), len(notes), 4)
        + notes
    )


def pvh_kernel(padding: int = 0) -> bytes:
    return with_notes(note("Xen", 18, b"\x00\x00\x00\x01")) + bytes(padding)


def with_section(name: str, content: bytes) -> bytes:
    """An ELF file with that section, and the one that holds the names."""
    names = b"\0" + name.encode() + b"\0.shstrtab\0"
    content_at = _FILE.size
    names_at = content_at + len(content)
    sections = (
        bytes(_SECTION.size)
        + _SECTION.pack(1, 1, 0, 0, content_at, len(content), 0, 0, 1, 0)
        + _SECTION.pack(2 + len(name), 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    )
    head = _header(section_at=names_at + len(names), sections=3, names_index=2)
    return head + content + names + sections


def module(*depends: str) -> bytes:
    """A kernel module that says what it depends on."""
    info = f"license=GPL\0depends={','.join(depends)}\0name=x\0"
    return with_section(".modinfo", info.encode())


def _header(*, program_at=0, programs=0, section_at=0, sections=0, names_index=0) -> bytes:
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    sizes = (_FILE.size, _PROGRAM.size, programs, _SECTION.size, sections, names_index)
    return _FILE.pack(ident, 2, 62, 1, 0, program_at, section_at, 0, *sizes)
