"""Snapshots out of one installation and into another; no guest, so none is resumed here."""

import hashlib
import io
import json
import zlib
from dataclasses import replace

import pytest

from snapshot_samples import FACTS, MIB, ZERO_PAGE, image_of, page_of, pause
from wrennd.archive.document import Document, Kind, Member, Piece
from wrennd.archive.reader import Archive
from wrennd.archive.writer import Source, write
from wrennd.core.errors import (
    AlreadyExists,
    InvalidInput,
    NoCapacity,
    SnapshotBroken,
    SnapshotIncompatible,
)
from wrennd.host import exchange, templates
from wrennd.host.pruning import prune
from wrennd.snapshot.manifest import Manifest
from wrennd.snapshot.reader import DISK, MANIFEST, TOKEN, open_snapshot
from wrennd.snapshot.verify import verify
from wrennd.storage.layout import Layout

PAGES = {1: page_of(1), 3: page_of(3), 7: ZERO_PAGE}


@pytest.fixture
def layout(tmp_path):
    return Layout.prepare(tmp_path / "there")


@pytest.fixture
def chain(tmp_path):
    """The second generation of a guest, which has memory of the first one, too."""
    first = pause(tmp_path / "here" / "gen-1", {1: page_of(1), 2: page_of(2)})
    return pause(tmp_path / "here" / "gen-2", {2: page_of(5), 1: ZERO_PAGE}, parent=first)


@pytest.fixture
def here(tmp_path):
    (tmp_path / "here").mkdir()


pytestmark = pytest.mark.usefixtures("here")


def exported(snapshot):
    out = io.BytesIO()
    exchange.export(snapshot, out)
    return out.getvalue()


def take(layout, data, name="taken"):
    return exchange.take(layout, io.BytesIO(data), "the file", name)


def is_untouched(layout):
    return (
        not templates.every(layout)
        and [path.name for path in layout.templates.iterdir() if path.is_dir()] == []
        and [path.name for path in layout.incoming.iterdir() if path.is_dir()] == []
        and not [*layout.names.iterdir()]
    )


def test_what_is_imported_is_what_was_exported(layout, chain):
    made = take(layout, exported(chain))
    assert made.name == "taken"
    found = open_snapshot(templates.get(layout, "taken").directory)
    assert image_of(found) == image_of(chain)
    assert found.disk.read_bytes() == chain.disk.read_bytes()
    assert (found.directory / TOKEN).read_bytes() == (chain.directory / TOKEN).read_bytes()
    assert verify(found.directory) == ()
    assert found.manifest.facts == replace(FACTS, name="taken")
    assert found.manifest.generations == chain.manifest.generations
    modes = {path.name: path.stat().st_mode & 0o777 for path in found.directory.iterdir()}
    assert (modes[TOKEN], modes[DISK], modes[MANIFEST]) == (0o600, 0o400, 0o444)
    assert [*layout.incoming.iterdir()] == [layout.incoming / ".lock"]


def test_a_single_file_snapshot(layout, tmp_path):
    whole = pause(tmp_path / "here" / "whole", PAGES, whole=True)
    take(layout, exported(whole))
    found = open_snapshot(templates.get(layout, "taken").directory)
    assert found.manifest.layout == whole.manifest.layout
    assert image_of(found) == image_of(whole)


def test_it_needs_its_source_only_until_it_has_begun(layout, chain):
    class Removing(io.BytesIO):
        def write(self, data):
            if chain.directory.exists():
                for path in chain.directory.iterdir():
                    path.unlink()
                chain.directory.rmdir()
            return super().write(data)

    out = Removing()
    memory = image_of(chain)
    exchange.export(chain, out)
    take(layout, out.getvalue())
    assert image_of(open_snapshot(templates.get(layout, "taken").directory)) == memory


def test_the_name_is_that_of_the_export(layout, tmp_path):
    data = exported(pause(tmp_path / "here" / "t", PAGES, name="frozen"))
    assert take(layout, data, name="").name == "frozen"
    with pytest.raises(AlreadyExists):
        take(layout, data, name="")
    assert take(layout, data, name="other").name == "other"
    with pytest.raises(AlreadyExists, match="base image"):
        take(layout, data, name="base")
    with pytest.raises(InvalidInput):
        take(layout, data, name="../x")


def test_one_without_a_name_wants_one(layout, chain):
    with pytest.raises(InvalidInput, match="no name"):
        take(layout, exported(chain), name="")


def test_one_that_is_cut_short_leaves_nothing(layout, chain):
    data = exported(chain)
    for length in (0, 30, len(data) // 2, len(data) - 40, len(data) - 1):
        with pytest.raises(SnapshotBroken, match="the file can't be imported: it is cut short"):
            take(layout, data[:length])
    assert is_untouched(layout)


def test_one_that_was_changed_leaves_nothing(layout, chain):
    data = bytearray(exported(chain))
    data[len(data) // 2] ^= 0x10
    with pytest.raises(SnapshotBroken, match="the file can't be imported"):
        take(layout, bytes(data))
    assert is_untouched(layout)


def test_one_of_another_version(layout, chain):
    data = bytearray(exported(chain))
    data[8] = 9
    with pytest.raises(SnapshotIncompatible, match="version 9"):
        take(layout, bytes(data))
    assert is_untouched(layout)


def test_one_whose_snapshot_was_damaged_before(layout, chain):
    path = chain.memfiles[-1]
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(chain.header.table.index(len(chain.memfiles)) * 4096)
        file.write(b"damage")
    with pytest.raises(SnapshotBroken, match="page"):
        take(layout, exported(chain))
    assert is_untouched(layout)


def forged(snapshot, **changes):
    """An export whose manifest says something else, and is whole otherwise."""
    manifest = snapshot.manifest
    facts = {**vars(manifest.facts), **changes}
    made = replace(manifest, facts=type(manifest.facts)(**facts))
    return with_files(snapshot, {MANIFEST: made.encode()})


def with_files(snapshot, files, *, kind="snapshot"):
    """files: by name; None takes one away."""
    found = {name: (snapshot.directory / name).read_bytes() for name in snapshot.manifest.files}
    found[MANIFEST] = (snapshot.directory / MANIFEST).read_bytes()
    content = {name: data for name, data in (found | files).items() if data is not None}
    members = [Member(path=name, size=len(data)) for name, data in content.items()]
    total = sum(map(len, content.values()))
    made = Document(
        kind=kind, created="", about={}, members=tuple(members), data_bytes=total
    ).encode()
    pieces = 0
    for index, data in enumerate(content.values()):
        for at in range(0, len(data), MIB):
            part = data[at : at + MIB]
            made += Piece(index, len(part), at, len(part), zlib.crc32(part)).encode() + part
            pieces += 1
    made += Piece.end(pieces).encode()
    return made + hashlib.sha256(made).digest()


def test_what_the_forged_ones_are_like_when_they_are_right(layout, chain):
    assert take(layout, forged(chain)).name == "taken"


@pytest.mark.parametrize(
    "changes",
    [
        {"vcpus": 1000},
        {"tier": "none"},
        {"overlay": "../dm"},
        {"sandbox": "../../etc"},
        {"cpu_model": "a\nb"},
        {"template": "x" * 300},
        {"extra": {"env": "[]"}},
        {"extra": {"env": '{"A=B": "x"}'}},
        {"extra": {"env": '{"A": 5}'}},
        {"extra": {"env": "["}},
        {"extra": {"env": json.dumps({"A": "x" * 70_000})}},
        {"extra": {"resolvers": "1.1.1.1,x"}},
        {"extra": {"image_digest": "../../x"}},
        {"mem_mib": 2},
    ],
)
def test_forged_facts(layout, chain, changes):
    with pytest.raises(SnapshotBroken):
        take(layout, forged(chain, **changes))
    assert is_untouched(layout)


def test_a_guest_larger_than_the_host(layout, chain):
    with pytest.raises(NoCapacity, match="does not fit"):
        take(layout, forged(chain, mem_mib=1 << 30))
    assert is_untouched(layout)


def test_more_than_there_is_room_for_is_not_even_read(layout):
    members = (Member(path=MANIFEST, size=1000), Member(path=DISK, size=1 << 44))
    made = Document(kind="snapshot", created="", about={}, members=members, data_bytes=1 << 43)
    with pytest.raises(NoCapacity, match="the import needs"):
        take(layout, made.encode())
    assert is_untouched(layout)


@pytest.mark.parametrize(
    "files",
    [
        {MANIFEST: None},
        {MANIFEST: b"{}"},
        {TOKEN: None},
        {"header": None},
        {"state": b"another"},
        {"passwd": b"x"},
        {"gen-1": b"x"},
        {"memfile." + "0" * 32: b"x"},
        {"base." + "0" * 32: b"x"},
        {TOKEN: b"x" * 5000},
    ],
)
def test_forged_files(layout, chain, files):
    with pytest.raises(SnapshotBroken):
        take(layout, with_files(chain, files))
    assert is_untouched(layout)


def test_links_have_no_place_in_a_snapshot(layout, tmp_path):
    sources = [Source(member=Member(path="state", kind=Kind.SYMLINK, target="/etc/shadow"))]
    out = io.BytesIO()
    write(out, "snapshot", sources, {})
    with pytest.raises(SnapshotBroken, match="no symlink state"):
        take(layout, out.getvalue())


def test_a_backup_is_no_snapshot(layout, chain):
    with pytest.raises(SnapshotBroken, match="it is a 'backup'"):
        take(layout, with_files(chain, {}, kind="backup"))


def test_what_a_killed_import_left_goes(layout, chain):
    for name in ("u" * 20, "u" * 20 + ".tmp"):
        (layout.incoming / name).mkdir()
    assert {each.name for each in prune(layout).items} == {
        f"incoming/{'u' * 20}",
        f"incoming/{'u' * 20}.tmp",
    }
    (layout.incoming / "u").mkdir()
    take(layout, exported(chain))
    assert [path.name for path in layout.incoming.iterdir()] == [".lock"]


def test_the_manifest_of_an_export_can_be_read_first(chain):
    archive = Archive(io.BytesIO(exported(chain)), max_document=MIB)
    assert archive.document.members[0].path == MANIFEST
    assert archive.document.about["sandbox"] == FACTS.sandbox
    assert Manifest.decode((chain.directory / MANIFEST).read_bytes()) == chain.manifest
    assert (chain.directory / MANIFEST).stat().st_size == archive.document.members[0].size
