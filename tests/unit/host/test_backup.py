"""A backup and back: what is in it, that it is the same afterwards, and what is refused."""

import io
from dataclasses import replace
from pathlib import Path

import pytest

from snapshot_samples import FACTS, image_of, page_of, pause
from wrennd.archive.document import Kind, Member
from wrennd.archive.writer import Source, write
from wrennd.core.errors import AlreadyExists, NoCapacity, SnapshotBroken, SnapshotIncompatible
from wrennd.core.states import State
from wrennd.host import record, templates, warm
from wrennd.host.backup import staged
from wrennd.host.record import Owner, Record
from wrennd.host.restore import restoring
from wrennd.linux.files import locked
from wrennd.snapshot.reader import open_snapshot
from wrennd.storage.images import INITRD, ROOTFS, VMLINUX, ImageStore
from wrennd.storage.layout import Layout

PAUSED, RUNNING, FRESH, BROKEN, RUN = (letter * 20 for letter in "prfbx")


def keep(layout, sandbox_id, state, **more):
    paths = layout.sandbox(sandbox_id)
    paths.data.mkdir()
    paths.owner_lock.touch()
    found = Record(
        id=sandbox_id,
        owner=more.pop("owner", Owner.INSTALLATION),
        state=state,
        template="base",
        vcpus=1,
        mem_mib=1,
        revision=5,
        **more,
    )
    paths.record.write_bytes(found.encode())
    return paths


@pytest.fixture
def layout(tmp_path):
    """An installation with some of everything."""
    made = Layout.prepare(tmp_path / "data")
    store = ImageStore(made)
    staging = store.image_staging("base")
    staging.mkdir()
    with (staging / ROOTFS).open("wb") as file:
        file.write(b"root" * 1000)
        file.truncate(1 << 20)
    store.publish_image("base", staging, {"recipe": "base"})
    staging = store.kernel_staging()
    staging.mkdir()
    (staging / VMLINUX).write_bytes(b"kernel")
    (staging / INITRD).write_bytes(b"initrd")
    store.publish_kernel(staging, {"version": "6.1"})
    paths = keep(made, PAUSED, State.PAUSED, generation=2, parent=2)
    first = pause(paths.generation(1), {1: page_of(1)}, sandbox=PAUSED)
    second = pause(paths.generation(2), {2: page_of(2)}, parent=first, sandbox=PAUSED)
    for path in first.directory.iterdir():
        path.unlink()
    first.directory.rmdir()
    templates.add(made, "frozen", second, replace(FACTS, name="frozen"))
    (paths.data / "out" / "memory").unlink()
    paths = keep(made, RUNNING, State.RUNNING, generation=1, parent=1, vmm_pid=1, slot=7)
    pause(paths.generation(1), {4: page_of(4)})
    keep(made, FRESH, State.RUNNING)
    paths = keep(made, BROKEN, State.ERROR, error="its VMM ended")
    paths.disk.write_bytes(b"disk" * 2000)
    paths.disk.chmod(0o640)
    paths.token.write_text("token")
    keep(made, RUN, State.RUNNING, owner=Owner.PROCESS)
    return made


def backed_up(layout, **server):
    out = io.BytesIO()
    with staged(layout) as found:
        for name, data in server.items():
            (found.server / name).write_bytes(data)
        made = found.write(out)
    return made, out.getvalue()


def restore(data, data_dir):
    with restoring(data_dir, io.BytesIO(data), "the file") as found:
        pass
    return found


def test_what_is_restored_is_what_was_backed_up(layout, tmp_path):
    made, data = backed_up(layout)
    assert (made.sandboxes, made.templates, made.images) == (3, 1, 1)
    assert made.written.bytes == len(data)
    found = restore(data, tmp_path / "to")
    assert found.sandboxes == 3
    there = Layout.find(tmp_path / "to")
    assert there.installation == layout.installation
    image = ImageStore(there).find("base")
    ImageStore(there).verify(image)
    assert image.used_bytes < image.size_bytes
    ImageStore(there).verify(ImageStore(there).kernel())
    assert [each.name for each in templates.every(there)] == ["frozen"]
    before, after = (each.sandbox(PAUSED).generation(2) for each in (layout, there))
    assert image_of(open_snapshot(after)) == image_of(open_snapshot(before))
    assert record.load(there.sandbox(PAUSED)) == record.load(layout.sandbox(PAUSED))
    assert not (tmp_path / "to" / "restore.tmp").exists()


def test_what_is_shared_stays_shared(layout, tmp_path):
    _, data = backed_up(layout)
    restore(data, tmp_path / "to")
    there = Layout.find(tmp_path / "to")
    kept = open_snapshot(there.sandbox(PAUSED).generation(2))
    frozen = open_snapshot(templates.get(there, "frozen").directory)
    assert kept.memfiles[0].samefile(frozen.memfiles[0])
    assert kept.memfiles[0].stat().st_nlink == 2


def test_what_it_has_of_a_warm_image_is_no_snapshot(layout):
    paths = keep(layout, "w" * 20, State.RUNNING, generation=1, parent=1, vmm_pid=1, slot=8)
    pause(paths.generation(1), {5: page_of(5)}, extra=warm.marked(FACTS).extra)
    made, _ = backed_up(layout)
    assert f"sandbox {'w' * 20}: it is running and has no snapshot: it is not in the backup" in (
        made.notes
    )
    assert made.sandboxes == 3


def test_one_that_runs_is_kept_as_it_last_stood_still(layout, tmp_path):
    made, data = backed_up(layout)
    assert f"sandbox {RUNNING}: it is running, and kept as of its newest snapshot" in made.notes
    assert any(FRESH in note and "has no snapshot" in note for note in made.notes)
    assert not any(RUN in note for note in made.notes)
    restore(data, tmp_path / "to")
    there = Layout.find(tmp_path / "to")
    found = record.load(there.sandbox(RUNNING))
    assert (found.state, found.revision, found.generation) == (State.PAUSED, 6, 1)
    assert (found.vmm_pid, found.slot) == (None, None)
    assert not there.sandbox(FRESH).data.exists()
    assert record.load(layout.sandbox(RUNNING)).state is State.RUNNING


def test_the_disk_of_one_in_error_is_kept(layout, tmp_path):
    _, data = backed_up(layout)
    restore(data, tmp_path / "to")
    paths = Layout.find(tmp_path / "to").sandbox(BROKEN)
    assert paths.disk.read_bytes() == b"disk" * 2000
    assert paths.token.read_text() == "token"
    assert record.load(paths).error == "its VMM ended"


def test_one_in_error_that_is_at_work_is_named_and_the_rest_can_be_restored(layout, tmp_path):
    with locked(layout.sandbox(BROKEN).owner_lock):
        made, data = backed_up(layout)
    assert any(BROKEN in note and "in the hands" in note for note in made.notes)
    assert made.sandboxes == 2
    restore(data, tmp_path / "to")
    assert not Layout.find(tmp_path / "to").sandbox(BROKEN).data.exists()


def test_a_record_that_cannot_be_read_is_named(layout):
    layout.sandbox(PAUSED).record.write_bytes(b"{}")
    made, _ = backed_up(layout)
    assert any(PAUSED in note and "can't be read" in note for note in made.notes)


def test_a_damaged_snapshot_is_named(layout):
    (layout.sandbox(PAUSED).generation(2) / "state").unlink()
    made, _ = backed_up(layout)
    assert any(PAUSED in note and "broken" in note for note in made.notes)
    assert made.sandboxes == 2


def test_nothing_is_left_where_it_was_gathered(layout):
    backed_up(layout)
    assert [path.name for path in layout.incoming.iterdir()] == [".lock"]


def test_what_the_server_keeps_is_there_before_it_is_in_place(layout, tmp_path):
    _, data = backed_up(layout, **{"wrenn.db": b"rows"})
    with restoring(tmp_path / "to", io.BytesIO(data), "the file") as found:
        assert (found.server / "wrenn.db").read_bytes() == b"rows"
        assert found.layout.installation == layout.installation
        assert not (tmp_path / "to" / "installation").exists()
        assert not found.is_again


def is_empty(directory: Path) -> bool:
    return not directory.exists() or not [*directory.iterdir()]


def test_one_that_is_cut_short_or_changed_leaves_nothing(layout, tmp_path):
    _, data = backed_up(layout)
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    for wrong in (data[:-1], data[: len(data) // 2], data[:10], bytes(changed)):
        with pytest.raises(SnapshotBroken, match="the file can't be restored"):
            restore(wrong, tmp_path / "to")
        assert is_empty(tmp_path / "to")


def test_another_version(layout, tmp_path):
    _, data = backed_up(layout)
    with pytest.raises(SnapshotIncompatible, match="version 3"):
        restore(data[:8] + b"\3" + data[9:], tmp_path / "to")


def test_a_directory_that_is_not_empty(layout, tmp_path):
    _, data = backed_up(layout)
    with pytest.raises(AlreadyExists, match="is not empty"):
        restore(data, layout.data_dir)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(AlreadyExists):
        restore(data, tmp_path / "other")
    assert (tmp_path / "other" / "file").exists()


def test_a_restore_that_was_killed_is_begun_anew(layout, tmp_path):
    _, data = backed_up(layout)
    to = tmp_path / "to"
    (to / "restore.tmp" / "images").mkdir(parents=True)
    (to / "templates" / ("t" * 20)).mkdir(parents=True)
    assert Layout.find(to) is None
    assert restore(data, to).is_again
    assert [each.name for each in templates.every(Layout.find(to))] == ["frozen"]
    assert not [path for path in (to / "templates").iterdir() if path.name == "t" * 20]


def test_a_failure_before_it_is_in_place_leaves_nothing(layout, tmp_path):
    _, data = backed_up(layout)
    with (
        pytest.raises(NoCapacity),
        restoring(tmp_path / "to", io.BytesIO(data), "the file"),
    ):
        raise NoCapacity("the server's part has no room")
    assert is_empty(tmp_path / "to")


@pytest.mark.parametrize(
    "member",
    [
        Member(path="installation"),
        Member(path="names", kind=Kind.SYMLINK, target="/etc"),
        Member(path="x", kind=Kind.DIRECTORY, mode=0o700),
    ],
)
def test_what_has_no_place_in_a_backup(member, tmp_path):
    out = io.BytesIO()
    write(out, "backup", [Source(member=member)], {"installation": "abcdef"})
    with pytest.raises(SnapshotBroken, match="a backup has no"):
        restore(out.getvalue(), tmp_path / "to")
    assert is_empty(tmp_path / "to")


@pytest.mark.parametrize("target", ["/etc", "../..", "../images/../../etc", "../sandboxes/x"])
def test_names_that_lead_elsewhere(target, tmp_path):
    out = io.BytesIO()
    sources = [
        Source(member=Member(path="names", kind=Kind.DIRECTORY, mode=0o700)),
        Source(member=Member(path="names/base", kind=Kind.SYMLINK, target=target)),
    ]
    write(out, "backup", sources, {"installation": "abcdef"})
    with pytest.raises(SnapshotBroken, match="can't lead to"):
        restore(out.getvalue(), tmp_path / "to")
