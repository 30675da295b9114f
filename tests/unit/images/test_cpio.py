import stat

import pytest

from wrennd.images import cpio


def parse(data: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Names to (mode, data, device), as Linux reads the format."""
    found, at = {}, 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + i * 8 : at + 14 + i * 8], 16) for i in range(13)]
        name_size, size = fields[11], fields[6]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        at += 110 + name_size
        at += -at % 4
        body = data[at : at + size]
        at += size + -size % 4
        if name == "TRAILER!!!":
            assert at == len(data)
            return found
        assert fields[5] == 0, "a time makes the archive depend on when it was built"
        assert fields[2:4] == [0, 0], "everything belongs to root"
        found[name] = (fields[1], body, (fields[9], fields[10]))


def test_every_kind_of_entry_can_be_read_back():
    archive = cpio.archive(
        [
            cpio.file("init", b"#!/bin/sh\n", 0o755),
            cpio.directory("dev"),
            cpio.character_device("dev/console", 5, 1),
            cpio.file("empty", b""),
        ]
    )
    assert parse(archive) == {
        "dev": (stat.S_IFDIR | 0o755, b"", (0, 0)),
        "dev/console": (stat.S_IFCHR | 0o600, b"", (5, 1)),
        "empty": (stat.S_IFREG | 0o644, b"", (0, 0)),
        "init": (stat.S_IFREG | 0o755, b"#!/bin/sh\n", (0, 0)),
    }


def test_the_order_of_entries_does_not_matter():
    entries = [cpio.directory("a"), cpio.file("a/b", b"1"), cpio.file("a-b", b"2")]
    assert cpio.archive(entries) == cpio.archive(reversed(entries))


def test_parents_come_before_children_also_where_sorting_by_text_would_not():
    names = list(
        parse(cpio.archive([cpio.file("a/x", b""), cpio.directory("a-"), cpio.directory("a")]))
    )
    assert names.index("a") < names.index("a/x")


def test_names_are_unique():
    with pytest.raises(ValueError, match="same name"):
        cpio.archive([cpio.file("x", b"1"), cpio.file("x", b"2")])


@pytest.mark.parametrize("name", ["", "/etc/passwd"])
def test_impossible_names_are_refused(name):
    with pytest.raises(ValueError, match="name"):
        cpio.file(name, b"")


def test_a_directory_has_no_data():
    with pytest.raises(ValueError, match="data"):
        cpio.Entry(name="x", mode=stat.S_IFDIR | 0o755, data=b"1")
