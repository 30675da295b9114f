import json
import os
import stat

import pytest

from wrennd.core.errors import ImageBroken, InvalidInput, NotFound
from wrennd.storage.images import INITRD, MANIFEST, ROOTFS, VMLINUX, ImageStore, Manifest
from wrennd.storage.layout import Layout


@pytest.fixture
def layout(tmp_path):
    return Layout.prepare(tmp_path / "data")


@pytest.fixture
def store(layout):
    return ImageStore(layout)


def publish(store, name="base", content=b"root", size=1 << 20):
    staging = store.image_staging(name)
    staging.mkdir()
    with (staging / ROOTFS).open("wb") as opened:
        opened.write(content)
        opened.truncate(size)
    return store.publish_image(name, staging, {"recipe": name})


def publish_kernel(store, vmlinux=b"kernel"):
    staging = store.kernel_staging()
    staging.mkdir()
    (staging / VMLINUX).write_bytes(vmlinux)
    (staging / INITRD).write_bytes(b"initrd")
    return store.publish_kernel(staging, {"version": "6.1.0"})


def test_an_image_is_found_by_its_name(store, layout):
    made = publish(store)
    found = store.find("base")
    assert found == made
    assert found.rootfs == layout.images / found.digest / ROOTFS
    assert found.rootfs.read_bytes().startswith(b"root\0")
    assert found.size_bytes == 1 << 20
    assert found.used_bytes < found.size_bytes
    assert found.manifest.facts == {"recipe": "base"}
    assert not store.image_staging("base").exists()
    assert [image.name for image in store.list()] == ["base"]


def test_what_is_published_is_read_only(store):
    found = publish(store)
    for name in (ROOTFS, MANIFEST):
        assert stat.S_IMODE((found.rootfs.parent / name).stat().st_mode) == 0o444


def test_a_kernel_is_found_with_its_version(store):
    made = publish_kernel(store)
    assert store.kernel() == made
    assert (made.version, made.vmlinux.read_bytes()) == ("6.1.0", b"kernel")


def test_json_has_what_image_ls_shows(store):
    said = publish(store).to_json()
    assert json.loads(json.dumps(said)) == said
    assert {"name", "digest", "size_bytes", "disk_bytes", "created"} <= said.keys()


def test_the_digest_is_of_content_only(store):
    first, second = publish(store, "one"), publish(store, "two")
    assert first.digest == second.digest
    assert publish(store, "three", b"other").digest != first.digest


def test_holes_and_zeros_are_the_same_content(store):
    """A copy that filled the holes of a sparse file still verifies."""
    found = publish(store)
    data = found.rootfs.read_bytes()
    found.rootfs.chmod(0o600)
    found.rootfs.write_bytes(data)
    store.verify(found)


@pytest.mark.parametrize("name", ["nosuch", "tmp"])
def test_an_unknown_name_is_not_found_and_the_known_ones_are_said(store, name):
    publish(store)
    with pytest.raises(NotFound, match=f"'{name}'.*base") as caught:
        store.find(name)
    assert "wrenn setup" in caught.value.hint


def test_no_kernel_is_not_found(store):
    with pytest.raises(NotFound, match="kernel") as caught:
        store.kernel()
    assert "wrenn setup" in caught.value.hint


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "A"])
def test_impossible_names_are_refused(store, name):
    with pytest.raises(InvalidInput, match="image name"):
        store.find(name)


def remove(path):
    path.unlink()


def shorten(path):
    path.chmod(0o600)
    os.truncate(path, 3)


def touch(path):
    os.utime(path)


def garble(path):
    path.chmod(0o600)
    path.write_text("{}")


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        (ROOTFS, remove, "is missing"),
        (ROOTFS, shorten, "has 3 bytes instead of 1048576"),
        (ROOTFS, touch, "was changed"),
        (MANIFEST, remove, "is missing"),
        (MANIFEST, garble, "can't be read"),
    ],
)
def test_damage_is_seen_at_use_and_the_file_is_named(store, name, damage, said):
    path = publish(store).rootfs.with_name(name)
    damage(path)
    with pytest.raises(ImageBroken, match=f"{path}.*{said}") as caught:
        store.find("base")
    assert "--force" in caught.value.hint


@pytest.mark.parametrize("name", [VMLINUX, INITRD])
def test_a_kernel_without_one_of_its_files_is_broken(store, name):
    path = publish_kernel(store).vmlinux.with_name(name)
    path.unlink()
    with pytest.raises(ImageBroken, match=str(path)):
        store.kernel()


def test_verify_sees_what_size_and_time_do_not_tell(store):
    found = publish(store)
    times = found.rootfs.stat()
    found.rootfs.chmod(0o600)
    with found.rootfs.open("r+b") as opened:
        opened.write(b"RooT")
    os.utime(found.rootfs, ns=(times.st_atime_ns, times.st_mtime_ns))
    store.find("base")
    with pytest.raises(ImageBroken, match=str(found.rootfs)):
        store.verify(found)


def test_a_name_moves_to_the_new_image_and_the_old_one_stays_until_it_is_pruned(store):
    old = publish(store)
    new = publish(store, content=b"newer")
    assert store.find("base").digest == new.digest
    assert old.rootfs.exists()
    store.prune({old.digest})
    assert old.rootfs.exists()
    store.prune(set())
    assert not old.rootfs.exists()
    assert store.find("base") == new


def test_publishing_the_same_content_repairs_what_was_damaged(store):
    found = publish(store)
    shorten(found.rootfs)
    again = publish(store)
    assert again.digest == found.digest
    store.verify(store.find("base"))


def test_an_incomplete_staging_directory_is_not_published(store, layout):
    old = publish_kernel(store)
    staging = store.kernel_staging()
    staging.mkdir()
    (staging / VMLINUX).write_bytes(b"other kernel")
    with pytest.raises(FileNotFoundError):
        store.publish_kernel(staging, {})
    assert store.kernel() == old
    store.remove_leftovers()
    assert not staging.exists()
    assert store.kernel() == old


def test_leftovers_have_no_name_and_can_be_removed(store, layout):
    publish(store)
    store.image_staging("other").mkdir()
    (store.image_staging("other") / ROOTFS).write_bytes(b"half")
    (layout.names / "other.tmp").symlink_to("../images/nothing")
    assert [image.name for image in store.list()] == ["base"]
    store.remove_leftovers()
    assert sorted(path.name for path in layout.names.iterdir()) == ["base"]
    assert len(list(layout.images.iterdir())) == 1


def test_a_name_that_leads_nowhere_is_broken_not_missing(store, layout):
    (layout.names / "lost").symlink_to("../images/0000")
    with pytest.raises(ImageBroken, match="lost"):
        store.find("lost")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": 2}',
        b'{"format": 1}',
        b'{"format": 1, "created": "x", "files": 3}',
    ],
)
def test_bytes_that_are_no_manifest(data):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own message, or ours
        Manifest.decode(data)


def test_a_manifest_survives_the_way_there_and_back(store):
    manifest = publish(store).manifest
    assert Manifest.decode(manifest.encode()) == manifest


def test_a_name_is_taken_away_and_prune_removes_what_it_named(store, layout):
    kept, gone = publish(store, "kept"), publish(store, "gone", b"other")
    store.unname("gone")
    assert (store.has("kept"), store.has("gone")) == (True, False)
    assert gone.rootfs.exists()
    store.prune({gone.digest})
    assert gone.rootfs.exists()
    store.prune(())
    assert not gone.rootfs.parent.exists()
    assert store.find("kept") == kept


def test_a_broken_image_has_a_name_that_can_be_taken_away(store):
    made = publish(store)
    made.rootfs.unlink()
    assert store.has("base")
    store.unname("base")
    assert store.list() == []


def test_a_name_that_is_not_there_is_said_with_those_that_are(store):
    publish(store, "mine")
    with pytest.raises(NotFound, match=r"'other' .there are: mine"):
        store.unname("other")
    with pytest.raises(InvalidInput, match="not a valid image name"):
        store.unname("../x")


def test_a_content_with_two_names_stays_for_the_other(store):
    publish(store, "one")
    publish(store, "two")
    store.unname("one")
    store.prune(())
    assert store.find("two").name == "two"
