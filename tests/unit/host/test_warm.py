"""Warm images without guests: what fits, what is removed, what a sandbox links."""

from dataclasses import replace

import pytest

from snapshot_samples import FACTS, overwrite, page_of, pause
from wrennd.core.errors import GuestFailed, SnapshotBroken, VmmRefused
from wrennd.host import warm
from wrennd.snapshot.reader import open_snapshot
from wrennd.snapshot.validity import Here
from wrennd.storage.layout import Layout

IMAGE, KERNEL, RESOLVERS = "1" * 32, "2" * 32, "1.1.1.1,8.8.8.8"
KNOWN = {"kernel_digest": KERNEL, "resolvers": RESOLVERS}
HERE = Here(
    vmm=FACTS.vmm,
    tier=FACTS.tier,
    cpu_model=FACTS.cpu_model,
    host_kernel=FACTS.host_kernel,
    guest_kernel=FACTS.guest_kernel,
)


@pytest.fixture
def layout(tmp_path):
    """With an image and a kernel as far as their names go."""
    made = Layout.prepare(tmp_path / "data")
    made.image_name("base").symlink_to(f"../images/{IMAGE}")
    made.current_kernel.symlink_to(KERNEL)
    return made


def kept(layout, name, **extra):
    pages = {number: page_of(number) for number in range(3)}
    return pause(layout.warm / name, pages, extra=KNOWN | extra)


def differences(here=HERE, kernel=KERNEL, resolvers=RESOLVERS):
    return warm.differences(replace(FACTS, extra=KNOWN), here, kernel, resolvers)


def test_what_is_as_it_was_fits_and_the_hosts_kernel_may_differ():
    assert differences() == []
    assert differences(replace(HERE, host_kernel="7.0")) == []


@pytest.mark.parametrize(
    "change",
    [
        {"vmm": replace(FACTS.vmm, kind="firecracker")},
        {"vmm": replace(FACTS.vmm, version="7.2.23")},
        {"vmm": replace(FACTS.vmm, binary="1" * 32)},
        {"vmm": replace(FACTS.vmm, snapshot_version="2")},
        {"vmm": replace(FACTS.vmm, devices=("block",))},
        {"tier": "kvm"},
        {"cpu_model": "Another CPU"},
        {"guest_kernel": "6.1.0-3"},
    ],
    ids=str,
)
def test_nothing_else_of_the_host_may_differ(change):
    assert len(differences(replace(HERE, **change))) >= 1


def test_another_kernel_build_or_other_resolvers_do_not_fit():
    assert differences(kernel="3" * 32) == ["of the warm image: its kernel was another one"]
    (reason,) = differences(resolvers="9.9.9.9")
    assert "9.9.9.9" in reason
    assert "1.1.1.1" in reason


def test_prune_keeps_what_has_its_image_and_kernel(layout):
    fits = kept(layout, f"{IMAGE}-1-512").directory
    kept(layout, f"{'3' * 32}-1-512")
    kept(layout, f"{IMAGE}-1-256", kernel_digest="4" * 32)
    kept(layout, f"{IMAGE}-2-512{warm.TRIAL}")
    (layout.warm / f"{IMAGE}-4-512.tmp").mkdir()
    overwrite(kept(layout, f"{IMAGE}-8-512").directory / "manifest.json", b"#", at=0)
    warm.prune(layout)
    assert [found for found in layout.warm.iterdir() if found.is_dir()] == [fits]


def test_a_sandbox_has_links_of_its_own(layout, tmp_path):
    found = kept(layout, f"{IMAGE}-1-512")
    shared = warm.share(layout, found, tmp_path / "gen-1")
    warm.remove(layout, found.directory)
    assert not found.directory.exists()
    assert open_snapshot(shared.directory).header == found.header
    with pytest.raises(SnapshotBroken, match="removed"):
        warm.share(layout, found, tmp_path / "gen-2")


def test_one_that_was_refused_or_can_not_be_read_is_removed(layout):
    for error in (VmmRefused("no"), SnapshotBroken("short")):
        found = kept(layout, f"{IMAGE}-1-512")
        warm.doubt(layout, found, error)
        assert not found.directory.exists()


def test_one_whose_guest_failed_is_removed_if_it_is_damaged(layout):
    found = kept(layout, f"{IMAGE}-1-512")
    warm.doubt(layout, found, GuestFailed("it did not get ready"))
    assert found.directory.exists()
    (memory,) = found.memfiles
    overwrite(memory, b"damage", at=4096)
    warm.doubt(layout, found, GuestFailed("it did not get ready"))
    assert not found.directory.exists()
