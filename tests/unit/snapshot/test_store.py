"""Snapshots as directories: made in one step, opened only if whole, shared and removed."""

import os
import stat
from dataclasses import replace

import pytest

from snapshot_samples import (
    FACTS,
    TOKEN,
    ZERO_PAGE,
    filled_draft,
    image,
    image_of,
    page_of,
    pause,
    reworded,
    rewrite,
    write_diff,
    write_output,
)
from wrennd.core.errors import (
    AlreadyExists,
    InvalidInput,
    NotFound,
    SnapshotBroken,
    SnapshotIncompatible,
    VmmFailed,
)
from wrennd.snapshot.header import Header
from wrennd.snapshot.manifest import MIB, Layout
from wrennd.snapshot.reader import exists, open_snapshot
from wrennd.snapshot.store import (
    MAX_STATE_BYTES,
    draft,
    generations,
    remove,
    remove_leftovers,
    share,
)
from wrennd.snapshot.verify import verify

FIRST = {0: page_of(1), 5: page_of(2), 6: page_of(3), 200: page_of(4)}
SECOND = {5: ZERO_PAGE, 6: page_of(9), 7: page_of(8)}


@pytest.fixture
def out(tmp_path):
    return write_output(tmp_path / "out", FIRST)


@pytest.fixture
def first(tmp_path):
    return pause(tmp_path / "gen-1", FIRST)


@pytest.fixture
def second(tmp_path, first):
    return pause(tmp_path / "gen-2", SECOND, parent=first)


def test_a_snapshot_has_what_was_put_into_it(first):
    assert image_of(first) == image(FIRST)
    assert first.state.read_bytes() == b"vcpus and devices"
    assert first.disk.read_bytes() == b"disk" * 5000
    assert first.read_token() == TOKEN
    assert first.touched is None
    assert first.manifest.facts == FACTS
    assert first.manifest.layout is Layout.CHAIN
    assert [g.data_pages for g in first.manifest.generations] == [4]
    assert open_snapshot(first.directory) == first
    assert exists(first.directory)


def test_only_root_gets_there_and_nobody_writes(first):
    assert stat.S_IMODE(first.directory.stat().st_mode) == 0o700
    modes = {
        p.name.split(".")[0]: stat.S_IMODE(p.stat().st_mode) for p in first.directory.iterdir()
    }
    assert modes == {
        "manifest": 0o444,
        "header": 0o444,
        "sums": 0o444,
        "memfile": 0o444,
        "state": 0o444,
        "rootfs": 0o400,
        "token": 0o600,
    }


def test_a_diff_links_what_it_needs_of_its_parent(first, second):
    assert image_of(second) == image({**FIRST, **SECOND})
    assert second.memfiles[0].samefile(first.directory / second.memfiles[0].name)
    assert [g.build for g in second.manifest.generations] == list(second.header.builds)
    assert [(g.data_pages, g.zero_pages) for g in second.manifest.generations] == [(4, 0), (2, 1)]


def test_a_zeroed_page_is_zero_although_the_parent_had_data(second):
    assert image_of(second)[5] == ZERO_PAGE
    assert second.header.table[5] == 0


def test_removing_a_parent_breaks_no_child(first, second):
    remove(first.directory)
    assert not first.directory.exists()
    assert image_of(open_snapshot(second.directory)) == image({**FIRST, **SECOND})
    assert verify(second.directory) == ()


def test_a_parents_file_of_which_nothing_is_left_is_not_linked(tmp_path, first):
    child = pause(tmp_path / "gen-2", {page: page_of(page + 50) for page in FIRST}, parent=first)
    assert child.header.builds == (child.manifest.generations[1].build,)
    assert not (child.directory / first.memfiles[0].name).exists()


def test_a_pause_that_changed_nothing_stores_nothing(tmp_path, first):
    child = pause(tmp_path / "gen-2", {5: FIRST[5], 9: ZERO_PAGE}, parent=first)
    assert child.header == first.header
    assert len(list(child.directory.glob("memfile.*"))) == 1
    assert [g.data_pages for g in child.manifest.generations] == [4, 0]


def test_a_guest_that_never_wrote(tmp_path):
    empty = pause(tmp_path / "gen-1", {})
    assert empty.header == Header.zero(256)
    assert verify(empty.directory) == ()


def test_the_single_file_layout(tmp_path):
    single = pause(tmp_path / "gen-1", {**FIRST, 9: ZERO_PAGE}, whole=True)
    assert exists(single.directory)
    assert sorted(p.name for p in single.directory.iterdir()) == [
        "manifest.json", "memfile", "rootfs.ext4", "state", "sums", "token",
    ]  # fmt: skip
    assert single.memfiles == (single.directory / "memfile",)
    assert (single.directory / "memfile").read_bytes() == b"".join(image(FIRST))
    assert image_of(open_snapshot(single.directory)) == image(FIRST)
    assert verify(single.directory) == ()
    child = pause(tmp_path / "gen-2", SECOND, parent=single)
    assert child.manifest.layout is Layout.CHAIN
    assert child.memfiles[0].samefile(single.directory / "memfile")
    remove(single.directory)
    assert image_of(child) == image({**FIRST, **SECOND})
    assert verify(child.directory) == ()


def test_a_single_file_of_zeros(tmp_path):
    single = pause(tmp_path / "gen-1", {3: ZERO_PAGE}, whole=True)
    assert single.memfiles == ()
    assert verify(single.directory) == ()
    assert image_of(pause(tmp_path / "gen-2", SECOND, parent=single)) == image(SECOND)


def test_sharing_makes_equals(tmp_path, second):
    template = share(second, tmp_path / "template", replace(FACTS, name="python"))
    assert template.manifest.facts.name == "python"
    assert template.manifest.files == second.manifest.files
    assert template.manifest.generations == second.manifest.generations
    for name in template.manifest.files:
        assert (template.directory / name).samefile(second.directory / name)
    remove(second.directory)
    assert verify(template.directory) == ()
    again = share(template, tmp_path / "gen-9")
    assert again.manifest.facts == template.manifest.facts


def test_sharing_a_single_file(tmp_path):
    single = pause(tmp_path / "gen-1", FIRST, whole=True)
    assert image_of(share(single, tmp_path / "template")) == image(FIRST)


def test_a_working_set_is_kept(tmp_path, out):
    with filled_draft(tmp_path / "gen-1", out) as made:
        made.write_touched(b"\1\2")
        snapshot = made.commit(FACTS)
    assert snapshot.touched.read_bytes() == b"\1\2"
    shared = share(snapshot, tmp_path / "template")
    assert shared.touched.read_bytes() == b"\1\2"


def test_nothing_is_left_of_a_draft_that_fails(tmp_path, out):
    with pytest.raises(RuntimeError), filled_draft(tmp_path / "gen-1", out):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [out]


def test_nothing_is_left_of_a_draft_that_is_not_committed(tmp_path, out):
    with filled_draft(tmp_path / "gen-1", out):
        pass
    assert list(tmp_path.iterdir()) == [out]


def test_a_draft_begins_anew_after_a_crash(tmp_path):
    left = tmp_path / "gen-1.tmp"
    left.mkdir()
    (left / "state").write_bytes(b"half")
    assert verify(pause(tmp_path / "gen-1", FIRST).directory) == ()
    assert not left.exists()


def test_a_name_is_taken_once(tmp_path, first, out):
    before = sorted((p.name, p.stat().st_ino) for p in first.directory.iterdir())
    with pytest.raises(AlreadyExists, match="gen-1 already"):
        pause(first.directory, SECOND)
    with filled_draft(tmp_path / "gen-7", out) as made:
        (tmp_path / "gen-7").mkdir()
        with pytest.raises(AlreadyExists, match="gen-7 already"):
            made.commit(FACTS)
    assert sorted((p.name, p.stat().st_ino) for p in first.directory.iterdir()) == before


def test_leftovers_go_and_snapshots_stay(tmp_path, first):
    for name in ("gen-2.tmp", "gen-3.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memfile").write_bytes(b"x")
    (tmp_path / "record.json.tmp").write_bytes(b"a file of somebody else's")
    assert remove_leftovers(tmp_path) == [tmp_path / "gen-2.tmp", tmp_path / "gen-3.tmp"]
    assert remove_leftovers(tmp_path) == []
    assert (tmp_path / "record.json.tmp").exists()
    assert exists(first.directory)


def test_removing_twice(first):
    remove(first.directory)
    remove(first.directory)


def test_the_committed_generations_are_counted(tmp_path, first, second):
    for name in ("gen-10.tmp", "gen-x", "gen-", "gen-1.out", "out"):
        (tmp_path / name).mkdir(exist_ok=True)
    share(second, tmp_path / "gen-11")
    assert generations(tmp_path) == [1, 2, 11]


def test_memory_of_another_size_is_no_parent(tmp_path, first):
    memory = write_diff(tmp_path / "memory", {}, 2 * MIB)
    complaint = "a guest of 2 MiB can't go on from one of 1"
    with draft(tmp_path / "gen-2") as made, pytest.raises(InvalidInput, match=complaint):
        made.take_memory(memory, parent=first, mem_mib=2)


def test_a_state_that_is_none(tmp_path):
    state = tmp_path / "state"
    with draft(tmp_path / "gen-1") as made:
        with pytest.raises(VmmFailed, match="did not write state"):
            made.take_state(state)
        state.symlink_to("/etc/passwd")
        with pytest.raises(VmmFailed, match="did not write state"):
            made.take_state(state)
        state.unlink()
        write_diff(state, {}, MAX_STATE_BYTES + 1)
        with pytest.raises(VmmFailed, match="instead of at most"):
            made.take_state(state)
    assert not (tmp_path / "gen-1").exists()


def flip(path, at=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    rewrite(path, bytes(data))


@pytest.mark.parametrize(
    ("name", "damage", "complaint"),
    [
        ("manifest.json", lambda p: p.unlink(), "it has no manifest.json"),
        ("manifest.json", flip, "manifest.json: "),
        ("manifest.json", lambda p: rewrite(p, b""), "manifest.json: the manifest is not JSON"),
        ("header", lambda p: p.unlink(), "it has no header"),
        ("header", flip, "header has checksum"),
        ("header", lambda p: rewrite(p, p.read_bytes()[:-1]), "header has [0-9]+ bytes, not"),
        ("state", lambda p: p.unlink(), "it has no state"),
        ("state", lambda p: rewrite(p, b"x"), "state has 1 bytes, not 17"),
        ("state", lambda p: (p.unlink(), p.mkdir()), "state is not a regular file"),
        ("sums", lambda p: p.unlink(), "it has no sums"),
        ("rootfs.ext4", lambda p: os.truncate(p, 100), "rootfs.ext4 has 100 bytes, not 20000"),
        ("token", lambda p: p.unlink(), "it has no token"),
        ("token", lambda p: (p.unlink(), p.symlink_to("state")), "token is not a regular file"),
    ],
)
def test_a_damaged_snapshot_is_refused_by_name(second, name, damage, complaint):
    damage(second.directory / name)
    with pytest.raises(SnapshotBroken, match=complaint) as caught:
        open_snapshot(second.directory)
    assert str(second.directory) in str(caught.value)
    assert "wrenn snapshot verify" in caught.value.hint


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_or_short_memory_file_is_refused_by_name(second, which):
    path = second.memfiles[which]
    os.truncate(path, MIB - 4096)
    with pytest.raises(SnapshotBroken, match=f"{path.name} has 1044480 bytes, not 1048576"):
        open_snapshot(second.directory)
    path.unlink()
    with pytest.raises(SnapshotBroken, match=f"it has no {path.name}"):
        open_snapshot(second.directory)


def test_the_sums_of_another_snapshot_are_refused(tmp_path, first, second):
    rewrite(second.directory / "sums", (first.directory / "sums").read_bytes())
    with pytest.raises(SnapshotBroken, match="sums has checksum"):
        open_snapshot(second.directory).read_sums()
    with pytest.raises(SnapshotBroken, match="sums has checksum"):
        pause(tmp_path / "gen-3", {}, parent=second)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m["facts"].update(mem_mib=2), "1048576 bytes, and its guest 2097152"),
        (lambda m: m["files"].pop("header"), "names no header"),
        (lambda m: m["files"].pop("sums"), "names no sums"),
        (lambda m: m["files"].pop("token"), "names no token"),
        (lambda m: m.update(layout="single"), "names no memfile"),
        (lambda m: m["generations"].pop(), "no generation wrote"),
        (
            lambda m: [m["files"].pop(name) for name in [*m["files"]] if "memfile" in name],
            "it has no memory files, and its header names memfile",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(second, change, complaint):
    reworded(second.directory, change)
    with pytest.raises(SnapshotBroken, match=complaint):
        open_snapshot(second.directory)


def test_the_header_of_another_generation_is_refused(first, second):
    rewrite(second.directory / "header", (first.directory / "header").read_bytes())
    with pytest.raises(SnapshotBroken, match="header has "):
        open_snapshot(second.directory)


def test_a_newer_format_is_refused_as_such(second):
    reworded(second.directory, lambda m: m.update(format=2))
    with pytest.raises(SnapshotIncompatible, match="made by a newer Wrenn") as caught:
        open_snapshot(second.directory)
    assert caught.value.hint == "upgrade this Wrenn"


def test_what_is_not_there(tmp_path):
    assert not exists(tmp_path / "gen-1")
    with pytest.raises(NotFound, match="no snapshot at"):
        open_snapshot(tmp_path / "gen-1")
    (tmp_path / "gen-1").mkdir()
    assert not exists(tmp_path / "gen-1")
    with pytest.raises(SnapshotBroken, match="has no manifest"):
        open_snapshot(tmp_path / "gen-1")
