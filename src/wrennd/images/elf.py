"""What we need to know of 64-bit little-endian ELF files: sections, notes, the interpreter.

Pure: bytes in, values out. Errors: ValueError when the bytes are no such file or are cut short.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_IDENT = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_FILE_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_NOTE_HEADER = struct.Struct("<III")
_PT_INTERP, _PT_NOTE = 3, 4
_SHT_NOBITS = 8


@dataclass(frozen=True, kw_only=True)
class Note:
    owner: str
    kind: int
    data: bytes


def notes(elf: bytes) -> Iterator[Note]:
    """Every note of every note segment."""
    for segment in _segments(elf, _PT_NOTE):
        yield from _notes_of(segment)


def interpreter(elf: bytes) -> str:
    """The dynamic loader that a program asks for; empty when it is static."""
    found = next(_segments(elf, _PT_INTERP), b"")
    return found.rstrip(b"\0").decode("latin-1")


def section(elf: bytes, name: str) -> bytes:
    """The content of the section of that name; KeyError when there is none."""
    header = _file_header(elf)
    offset, size, count, strings_at = header[6], header[11], header[12], header[13]
    headers = [_unpack(_SECTION_HEADER, elf, offset + index * size) for index in range(count)]
    if strings_at >= count:
        raise KeyError(name)
    strings = _slice(elf, headers[strings_at][4], headers[strings_at][5])
    wanted = name.encode() + b"\0"
    for found in headers:
        if strings.startswith(wanted, found[0]) and found[1] != _SHT_NOBITS:
            return _slice(elf, found[4], found[5])
    raise KeyError(name)


def _segments(elf: bytes, kind: int) -> Iterator[bytes]:
    header = _file_header(elf)
    offset, size, count = header[5], header[9], header[10]
    for index in range(count):
        segment = _unpack(_PROGRAM_HEADER, elf, offset + index * size)
        if segment[0] == kind:
            yield _slice(elf, segment[2], segment[5])


def _file_header(elf: bytes) -> tuple[int, ...]:
    if not elf.startswith(_IDENT):
        raise ValueError("not a 64-bit little-endian ELF file")
    return _unpack(_FILE_HEADER, elf, 0)


def _notes_of(segment: bytes) -> Iterator[Note]:
    at = 0
    while at + _NOTE_HEADER.size <= len(segment):
        name_size, data_size, kind = _NOTE_HEADER.unpack_from(segment, at)
        name_at = at + _NOTE_HEADER.size
        data_at = name_at + _aligned(name_size)
        owner = _slice(segment, name_at, name_size).rstrip(b"\0").decode("latin-1")
        yield Note(owner=owner, kind=kind, data=_slice(segment, data_at, data_size))
        at = data_at + _aligned(data_size)


def _aligned(size: int) -> int:
    return size + -size % 4


def _slice(data: bytes, offset: int, size: int) -> bytes:
    if offset + size > len(data):
        raise ValueError(f"the ELF file is cut short: {len(data)} bytes, {offset + size} needed")
    return data[offset : offset + size]


def _unpack(what: struct.Struct, data: bytes, offset: int) -> tuple[int, ...]:
    if offset + what.size > len(data):
        raise ValueError(f"the ELF file is cut short: {len(data)} bytes")
    return what.unpack_from(data, offset)
