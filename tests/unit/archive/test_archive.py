"""Archives: what goes in comes out, sparse, and nothing else does."""

import hashlib
import io
import json
import os
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrennd.archive.document import (
    HEAD,
    PIECE,
    PIECE_BYTES,
    SUM_BYTES,
    ArchiveError,
    Document,
    Kind,
    Member,
    OtherVersion,
    Piece,
)
from wrennd.archive.reader import Archive
from wrennd.archive.writer import Source, write

MIB = 1 << 20
RANDOM = random.Random(7)


def sparse(path, runs, size):
    """A file of that size with these {offset: content}."""
    with path.open("wb") as file:
        file.truncate(size)
        for at, data in runs.items():
            file.seek(at)
            file.write(data)
    return path


def source(path, name="", **more):
    return Source(
        member=Member(path=name or path.name, size=path.stat().st_size, **more), file=path
    )


def archived(*sources, kind="snapshot", **about):
    out = io.BytesIO()
    write(out, kind, sources, about)
    return out.getvalue()


def unpacked(data, directory):
    directory.mkdir()
    archive = Archive(io.BytesIO(data), max_document=MIB)
    archive.unpack(directory)
    return archive.document


@pytest.fixture
def data(tmp_path):
    return archived(source(sparse(tmp_path / "one", {5000: b"x" * 70_000}, 3 * MIB)))


def sealed(*parts):
    """Parts of a forged archive, with a right checksum."""
    whole = b"".join(parts)
    return whole + hashlib.sha256(whole).digest()


def document(*members, data_bytes=None):
    total = sum(member.size for member in members)
    return Document(
        kind="snapshot",
        created="",
        about={},
        members=members,
        data_bytes=total if data_bytes is None else data_bytes,
    )


def piece(member, offset, content, packed=None, **more):
    packed = zlib.compress(content) if packed is None else packed
    length = more.get("length", len(content))
    checksum = more.get("checksum", zlib.crc32(content))
    return Piece(member, length, offset, len(packed), checksum).encode() + packed


def test_what_goes_in_comes_out_with_its_holes(tmp_path):
    noise = RANDOM.randbytes(3 * MIB)
    one = sparse(tmp_path / "one", {100: noise, 40 * MIB: b"end"}, 64 * MIB + 17)
    empty = sparse(tmp_path / "empty", {}, 0)
    hole = sparse(tmp_path / "hole", {}, 5 * MIB)
    made = archived(source(one), source(empty, mode=0o600), source(hole), name="n")
    found = unpacked(made, tmp_path / "to")
    assert found.about == {"name": "n"}
    for path in (one, empty, hole):
        there = tmp_path / "to" / path.name
        assert there.read_bytes() == path.read_bytes()
    assert (tmp_path / "to" / "empty").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "to" / "one").stat().st_mode & 0o777 == 0o444
    assert (tmp_path / "to" / "one").stat().st_blocks * 512 < 6 * MIB
    assert (tmp_path / "to" / "hole").stat().st_blocks == 0
    assert len(made) < 4 * MIB


def test_zeros_that_are_written_take_nothing(tmp_path):
    one = sparse(tmp_path / "one", {0: bytes(8 * MIB), 8 * MIB: b"x"}, 9 * MIB)
    made = archived(source(one))
    assert len(made) < 2000
    unpacked(made, tmp_path / "to")
    there = tmp_path / "to" / "one"
    assert there.read_bytes() == one.read_bytes()
    assert there.stat().st_blocks * 512 < MIB


def test_trees_links_and_symlinks(tmp_path):
    one = sparse(tmp_path / "one", {0: b"1"}, 1)
    made = archived(
        Source(member=Member(path="a", kind=Kind.DIRECTORY, mode=0o700)),
        source(one, "a/one"),
        Source(member=Member(path="a/two", kind=Kind.LINK, target="a/one")),
        Source(member=Member(path="name", kind=Kind.SYMLINK, target="../elsewhere")),
    )
    unpacked(made, tmp_path / "to")
    to = tmp_path / "to"
    assert (to / "a" / "two").samefile(to / "a" / "one")
    assert os.fspath((to / "name").readlink()) == "../elsewhere"


def test_content_may_come_from_a_descriptor(tmp_path):
    one = sparse(tmp_path / "one", {10: b"x"}, 5000)
    with one.open("rb") as file:
        one.unlink()
        member = Member(path="one", size=5000)
        made = archived(Source(member=member, file=file.fileno()))
    unpacked(made, tmp_path / "to")
    assert (tmp_path / "to" / "one").read_bytes()[10:11] == b"x"


@settings(max_examples=12)  # each is synced to the disk
@given(
    runs=st.lists(
        st.tuples(st.integers(0, 3 * MIB), st.integers(1, 2 * MIB), st.booleans()), max_size=4
    )
)
def test_any_file(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    content = {at: (b"\0" if zero else b"\xa5") * size for at, size, zero in runs}
    one = sparse(folder / "one", content, 5 * MIB)
    unpacked(archived(source(one)), folder / "to")
    assert (folder / "to" / "one").read_bytes() == one.read_bytes()


def test_the_same_content_makes_the_same_archive(tmp_path, data):
    again = archived(source(sparse(tmp_path / "one", {5000: b"x" * 70_000}, 3 * MIB)))
    assert [len(again), again[-200:-SUM_BYTES]] == [len(data), data[-200:-SUM_BYTES]]


def test_one_that_is_cut_short_anywhere_is_refused(tmp_path, data):
    for length in {0, 1, HEAD.size - 1, HEAD.size, 200, len(data) - SUM_BYTES, len(data) - 1}:
        with pytest.raises(ArchiveError, match="cut short"):
            unpacked(data[:length], tmp_path / f"to{length}")


def test_one_in_which_any_byte_was_changed_is_refused(tmp_path, data):
    for at in range(0, len(data), 3):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises(ArchiveError):
            unpacked(bytes(changed), tmp_path / f"to{at}")


def test_what_follows_its_end_is_refused(tmp_path, data):
    with pytest.raises(ArchiveError, match="something follows"):
        unpacked(data + b"x", tmp_path / "to")


def test_another_version_is_named(data):
    changed = bytearray(data)
    changed[8] = 2
    with pytest.raises(OtherVersion, match="version 2, and this Wrenn reads version 1"):
        Archive(io.BytesIO(bytes(changed)), max_document=MIB)


def test_what_is_no_archive(tmp_path):
    with pytest.raises(ArchiveError, match="not written by Wrenn"):
        Archive(io.BytesIO(b"PK\3\4" * 100), max_document=MIB)


def test_a_list_of_files_that_is_too_long_is_not_read(data):
    with pytest.raises(ArchiveError, match="list of files has"):
        Archive(io.BytesIO(data), max_document=100)


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a//b", ".", "a/", "x\0", "ä", "a" * 200, "a\nb"]
)
def test_names_that_lead_elsewhere(path):
    with pytest.raises(ArchiveError):
        Member(path=path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": -1},
        {"size": 1 << 50},
        {"mode": 0o4755},
        {"mode": 0o777},
        {"kind": Kind.DIRECTORY, "size": 1},
        {"kind": Kind.LINK},
        {"target": "x"},
        {"kind": Kind.SYMLINK, "target": "x\ny"},
    ],
)
def test_members_that_cannot_be(wrong):
    with pytest.raises(ArchiveError):
        Member(path="x", **wrong)


@pytest.mark.parametrize(
    "members",
    [
        [Member(path="a"), Member(path="a")],
        [Member(path="a/b")],
        [Member(path="a"), Member(path="a/b")],
        [Member(path="s", kind=Kind.SYMLINK, target="/etc"), Member(path="s/b")],
        [Member(path="l", kind=Kind.LINK, target="none")],
        [Member(path="l", kind=Kind.LINK, target="later"), Member(path="later")],
        [
            Member(path="s", kind=Kind.SYMLINK, target="/etc/shadow"),
            Member(path="l", kind=Kind.LINK, target="s"),
        ],
    ],
)
def test_lists_that_cannot_be(members):
    with pytest.raises(ArchiveError):
        document(*members)


@pytest.mark.parametrize(
    "change",
    [
        {"members": 5},
        {"members": [[]]},
        {"members": [{"path": "a"}]},
        {"data_bytes": "1"},
        {"data_bytes": 1 << 60},
        {"about": []},
        {"about": {"a": 1}},
        {"kind": None},
    ],
)
def test_lists_that_make_no_sense(change):
    value = {"kind": "snapshot", "created": "", "about": {}, "members": [], "data_bytes": 0}
    text = json.dumps(value | change).encode()
    with pytest.raises(ArchiveError):
        Document.decode(text, zlib.crc32(text))


def test_a_list_that_is_nested_too_deeply():
    text = b"[" * 100_000
    with pytest.raises(ArchiveError):
        Document.decode(text, zlib.crc32(text))


ONE = Member(path="one", size=2 * PIECE_BYTES)
BYTES = b"y" * 1000
FORGED = {
    "a piece behind the end of its file": [piece(0, 2 * PIECE_BYTES - 999, BYTES)],
    "a piece of no file": [piece(1, 0, BYTES)],
    "pieces that overlap": [piece(0, 0, BYTES), piece(0, 999, BYTES)],
    "pieces that go back": [piece(0, 5000, BYTES), piece(0, 0, BYTES)],
    "a bomb": [piece(0, 0, bytes(PIECE_BYTES), length=1000)],
    "too little": [piece(0, 0, BYTES, length=1001)],
    "another checksum": [piece(0, 0, BYTES, checksum=5)],
    "content that is not packed": [piece(0, 0, BYTES, packed=b"z" * 100)],
    "packed to more than it is": [piece(0, 0, BYTES, packed=bytes(1001))],
    "more than the list says": [piece(0, 0, BYTES), piece(0, 2000, BYTES)],
    "an empty piece": [Piece(0, 0, 0, 0, 0).encode()],
    "a piece that is too long": [Piece(0, PIECE_BYTES + 1, 0, 1, 0).encode()],
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_content(name, tmp_path):
    pieces = FORGED[name]
    made = sealed(document(ONE, data_bytes=1500).encode(), *pieces, Piece.end(len(pieces)).encode())
    with pytest.raises(ArchiveError):
        unpacked(made, tmp_path / "to")


def test_forged_counts(tmp_path):
    made = sealed(document(ONE).encode(), piece(0, 0, BYTES), Piece.end(2).encode())
    with pytest.raises(ArchiveError, match="1 pieces instead of 2"):
        unpacked(made, tmp_path / "to")


def test_what_the_forged_ones_are_like_when_they_are_right(tmp_path):
    made = sealed(document(ONE).encode(), piece(0, 0, BYTES), Piece.end(1).encode())
    unpacked(made, tmp_path / "to")
    assert (tmp_path / "to" / "one").read_bytes()[:1000] == BYTES
    assert PIECE.size == 28


def test_an_existing_file_is_not_written_to(tmp_path, data):
    to = tmp_path / "to"
    to.mkdir()
    (to / "one").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        Archive(io.BytesIO(data), max_document=MIB).unpack(to)
    assert not (tmp_path / "victim").exists()


def test_a_stream_that_gives_little_at_a_time(tmp_path, data):
    class Slow(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 7))

    (tmp_path / "to").mkdir()
    Archive(Slow(data), max_document=MIB).unpack(tmp_path / "to")
