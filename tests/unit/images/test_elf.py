import pytest

from elf_files import module, note, with_notes, with_section
from wrennd.images import elf


def test_notes_are_found_with_owner_kind_and_data():
    data = with_notes(note("Linux", 1, b"abc") + note("Xen", 18, b"\1\2\3\4"))
    found = [(n.owner, n.kind, n.data) for n in elf.notes(data)]
    assert found == [("Linux", 1, b"abc"), ("Xen", 18, b"\1\2\3\4")]


def test_a_section_is_found_by_name():
    assert elf.section(with_section(".modinfo", b"depends=a"), ".modinfo") == b"depends=a"


def test_a_name_that_only_begins_alike_is_another_section():
    with pytest.raises(KeyError):
        elf.section(with_section(".modinfo_more", b"x"), ".modinfo")


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n" + bytes(100)])
def test_what_is_no_elf_file_is_refused(data):
    with pytest.raises(ValueError, match="ELF"):
        list(elf.notes(data))


def test_every_cut_of_a_file_is_refused_and_none_is_read_past_its_end():
    whole = module("virtio")
    for length in range(len(whole) - 1):
        with pytest.raises((ValueError, KeyError)):
            elf.section(whole[:length], ".modinfo")
