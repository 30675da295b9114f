"""What may go, and that nothing else does. No sandbox runs; records are written as they lie."""

import os

import pytest

from snapshot_samples import FACTS, page_of, pause
from wrennd.core.errors import WrongState
from wrennd.core.states import State
from wrennd.host import templates
from wrennd.host.pruning import prune
from wrennd.host.record import Owner, Record
from wrennd.host.space import space
from wrennd.linux.files import locked
from wrennd.storage.images import INITRD, ROOTFS, VMLINUX, ImageStore
from wrennd.storage.layout import Layout

ID = "s" * 20


@pytest.fixture
def layout(tmp_path):
    return Layout.prepare(tmp_path / "data")


def publish(layout, name="base", content=b"one"):
    store = ImageStore(layout)
    staging = store.image_staging(name)
    staging.mkdir()
    (staging / ROOTFS).write_bytes(content * 10_000)
    return store.publish_image(name, staging, {})


def publish_kernel(layout, content=b"one"):
    store = ImageStore(layout)
    staging = store.kernel_staging()
    staging.mkdir()
    (staging / VMLINUX).write_bytes(content * 10_000)
    (staging / INITRD).write_bytes(b"initrd")
    return store.publish_kernel(staging, {"version": "6.1"})


def keep(layout, sandbox_id=ID, **more):
    """A paused sandbox, as far as its record tells."""
    paths = layout.sandbox(sandbox_id)
    paths.data.mkdir()
    found = Record(
        id=sandbox_id,
        owner=Owner.INSTALLATION,
        state=State.PAUSED,
        template="base",
        vcpus=1,
        mem_mib=1,
        **more,
    )
    paths.record.write_bytes(found.encode())
    return paths


def freeze(layout, name):
    made = pause(layout.data_dir / "scratch", {1: page_of(1)})
    templates.add(layout, name, made, FACTS)
    for path in made.directory.iterdir():
        path.unlink()
    made.directory.rmdir()


def went(done):
    return {(each.kind, each.name) for each in done.items}


def test_a_fresh_installation_has_nothing_to_lose(layout):
    assert prune(layout).items == ()


def test_what_has_a_name_stays(layout):
    image, kernel = publish(layout), publish_kernel(layout)
    freeze(layout, "frozen")
    assert prune(layout).items == ()
    assert image.rootfs.exists()
    assert kernel.vmlinux.exists()
    assert [each.name for each in templates.every(layout)] == ["frozen"]


def test_what_was_replaced_goes(layout):
    old, old_kernel = publish(layout), publish_kernel(layout)
    new, new_kernel = publish(layout, content=b"two"), publish_kernel(layout, b"two")
    done = prune(layout)
    assert went(done) == {("image", old.digest), ("kernel", old_kernel.digest)}
    assert done.freed_bytes == sum(each.own_bytes for each in done.items) > 60_000
    assert not old.rootfs.parent.exists()
    assert new.rootfs.exists()
    assert new_kernel.vmlinux.exists()
    assert prune(layout).items == ()


def test_a_dry_run_says_the_same_and_removes_nothing(layout):
    old = publish(layout)
    publish(layout, content=b"two")
    told = prune(layout, is_dry_run=True)
    assert old.rootfs.exists()
    assert prune(layout) == told


@pytest.mark.parametrize("what", ["image_digest", "kernel_digest"])
def test_what_a_sandbox_was_made_of_stays(layout, what):
    old = publish(layout) if what == "image_digest" else publish_kernel(layout)
    keep(layout, **{what: old.digest})
    publish(layout, content=b"two")
    publish_kernel(layout, b"two")
    assert prune(layout).items == ()


def test_a_record_that_cannot_be_read_protects_them_all(layout):
    old = publish(layout)
    publish(layout, content=b"two")
    freeze(layout, "frozen")
    keep(layout).record.write_bytes(b"{}")
    (layout.cache / "apt").mkdir()
    done = prune(layout, with_templates=True)
    assert went(done) == {("cache", "apt")}
    assert ID in done.notes[0]
    assert old.rootfs.exists()


def test_caches_and_what_broken_off_builds_left(layout):
    publish(layout)
    (layout.cache / "apt" / "archives").mkdir(parents=True)
    (layout.cache / "work.tmp").mkdir()
    ImageStore(layout).image_staging("base").mkdir()
    (layout.names / "base.tmp").symlink_to("../images/none")
    (layout.templates / ("t" * 20)).mkdir()
    (layout.templates / ("u" * 20 + ".tmp")).mkdir()
    (layout.warm / ("1" * 32 + "-1-512.trial")).mkdir()
    (layout.warm / ("2" * 32 + "-1-512")).mkdir()
    done = prune(layout)
    assert went(done) == {
        ("cache", "apt"),
        ("leftover", f"warm/{'1' * 32}-1-512.trial"),
        ("warm", f"{'2' * 32}-1-512"),
        ("leftover", "cache/work.tmp"),
        ("leftover", "images/base.tmp"),
        ("leftover", "names/base.tmp"),
        ("leftover", f"templates/{'t' * 20}"),
        ("leftover", f"templates/{'u' * 20}.tmp"),
    }
    assert not [*layout.cache.iterdir()]
    assert [path.name for path in layout.templates.iterdir()] == [".lock"]
    assert ImageStore(layout).find("base")


def test_a_removal_that_was_broken_off_is_finished(layout):
    """The old image came back meanwhile, and went again."""
    old = publish(layout)
    half = old.rootfs.parent.with_name(f"{old.digest}.tmp")
    half.mkdir()
    (half / ROOTFS).touch()
    publish(layout, content=b"two")
    assert len(prune(layout).items) == 2
    assert prune(layout).items == ()


def test_templates_go_only_when_it_is_asked_for_and_nothing_is_of_them(layout):
    publish(layout)
    freeze(layout, "used")
    freeze(layout, "unused")
    paths = keep(layout)
    made_of = Record.decode(paths.record.read_bytes())
    paths.record.write_bytes(made_of.encode().replace(b'"template": "base"', b'"template": "used"'))
    assert prune(layout).items == ()
    assert went(prune(layout, with_templates=True)) == {("template", "unused")}
    assert [each.name for each in templates.every(layout)] == ["used"]


def test_not_while_a_setup_works(layout):
    old = publish(layout)
    publish(layout, content=b"two")
    with locked(layout.setup_lock), pytest.raises(WrongState, match="a setup is at work"):
        prune(layout)
    assert old.rootfs.exists()


def test_what_takes_disk_is_told_by_thing_and_by_part(layout):
    publish(layout)
    freeze(layout, "frozen")
    paths = keep(layout)
    made = pause(paths.generation(1), {1: page_of(1)})
    memory = made.memfiles[0]
    later = paths.generation(2)
    later.mkdir()
    os.link(memory, later / memory.name)
    found = space(layout)
    named = {(each.kind, each.of, each.name): each for each in found.holdings}
    assert set(named) == {
        ("image", "", "base"),
        ("template", "", "frozen"),
        ("sandbox", "", ID),
        ("generation", ID, "gen-1"),
        ("generation", ID, "gen-2"),
    }
    box = named["sandbox", "", ID]
    first = named["generation", ID, "gen-1"]
    shared = memory.stat().st_blocks * 512
    assert box.note == "paused"
    assert box.own_bytes == box.total_bytes
    assert first.total_bytes - first.own_bytes == shared
    whole = sum(each.total_bytes for each in found.holdings if not each.of)
    assert found.total_bytes == whole
