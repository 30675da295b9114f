"""What is in the images that were built, read out of their disks."""

import itertools
import os
import stat
import zipfile
from pathlib import Path

import pytest

from wrennd.core.errors import ImageBroken
from wrennd.images import ext4
from wrennd.linux.process import run

pytestmark = pytest.mark.root
UNCHECKED_HASH = b"\1\0\0\0"


def read_out(rootfs: Path, path: str, target: Path) -> Path:
    """A copy of a file or directory of an image, with its owners and modes."""
    target.mkdir()
    run(("debugfs", "-R", f"rdump {path} {target}", rootfs), timeout_s=120)
    return target / Path(path).name


@pytest.fixture(scope="module", params=["base", "busybox"])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def image(images, name):
    return images.find(name)


@pytest.fixture(scope="module")
def ours(image, tmp_path_factory):
    return read_out(image.rootfs, "/usr/lib/wrenn", tmp_path_factory.mktemp("ours") / "x")


@pytest.fixture(scope="module")
def etc(image, tmp_path_factory):
    return read_out(image.rootfs, "/etc", tmp_path_factory.mktemp("etc") / "x")


def test_nothing_is_compiled_in_a_guest(ours):
    """No sources, and only .pyc that no clock can make stale (PEP 552, unchecked hash)."""
    library = [p for p in (ours / "python/lib").rglob("*") if p.is_file()]
    compiled = [p for p in library if p.suffix == ".pyc"]
    assert len(compiled) > 100
    assert [p for p in library if p.suffix == ".py"] == []
    assert [p for p in compiled if p.read_bytes()[4:8] != UNCHECKED_HASH] == []
    assert [*(ours / "python").rglob("__pycache__")] == []


def test_the_agent_is_compiled_and_stored(ours):
    with zipfile.ZipFile(ours / "envd.pyz") as archive:
        names = archive.namelist()
        assert {"__main__.pyc", "wrennd/envd/__main__.pyc"} <= {*names}
        assert [n for n in names if not n.endswith(".pyc")] == []
        assert [i.filename for i in archive.infolist() if i.compress_type] == []
        assert [n for n in names if archive.read(n)[4:8] != UNCHECKED_HASH] == []
        assert len({i.date_time for i in archive.infolist()}) == 1


def test_the_interpreter_runs_with_nothing_but_its_directory(ours):
    """In a root directory that holds only it: no libc, no /proc, no /dev, no environment."""
    python = "/python/ld.so", "--library-path", "/python/lib", "/python/bin/python3", "-ISB"
    program = "import sys, json, socket, ctypes, hashlib; print(sys.flags.dont_write_bytecode)"
    done = run(
        ("chroot", ours, *python, "-X", "utf8", "-c", program),
        timeout_s=30,
        env={"PATH": "/usr/sbin:/sbin"},
    )
    assert done.stdout == "1\n"


def test_the_agent_starts(ours):
    python = "/python/ld.so", "--library-path", "/python/lib", "/python/bin/python3", "-ISB"
    done = run(("chroot", ours, *python, "/envd.pyz", "--version"), timeout_s=30)
    assert done.stdout.strip()


def test_users(etc, image, tmp_path):
    passwd = [line.split(":") for line in (etc / "passwd").read_text().splitlines()]
    (user,) = [line for line in passwd if line[0] == "user"]
    assert user[2:4] == ["1000", "1000"]
    assert user[5] == "/home/user"
    shadow = [line.split(":") for line in (etc / "shadow").read_text().splitlines()]
    assert [line for line in shadow if line[1] not in ("*", "!", "!*")] == []
    home = read_out(image.rootfs, "/home/user", tmp_path / "home").stat()
    assert (home.st_uid, home.st_gid) == (1000, 1000)
    assert stat.S_IMODE(home.st_mode) == 0o755


def test_base_has_debians_own_settings_and_nothing_of_this_host(images, tmp_path):
    etc = read_out(images.find("base").rootfs, "/etc", tmp_path / "base")
    assert (etc / "resolv.conf").read_text() == ""
    assert (etc / "machine-id").read_text() == ""
    assert (etc / "hostname").read_text() == "localhost\n"
    assert [p.name for p in (etc / "apt/sources.list.d").iterdir()] == ["debian.sources"]
    assert not (etc / "apt/sources.list").exists()
    assert not (etc / "apt/apt.conf").exists()
    assert (
        "http://deb.debian.org/debian\n" in (etc / "apt/sources.list.d/debian.sources").read_text()
    )
    settings = "".join(p.read_text() for p in (etc / "apt/apt.conf.d").iterdir())
    assert "proxy" not in settings.lower()
    assert "Acquire" not in settings
    assert (etc / "sudoers.d/user").read_text().startswith("user ALL=")
    assert [p for p in etc.rglob("ssh_host_*")] == []


def test_an_image_is_sparse_and_ext4_is_clean(image):
    assert image.size_bytes == 4096 << 20
    assert image.used_bytes < 400 << 20
    run(("e2fsck", "-fn", image.rootfs), timeout_s=120)


def test_owners_and_modes_come_from_the_tree(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("x")
    os.chown(tree / "file", 1000, 8)
    (tree / "file").chmod(0o4750)
    ext4.make(tree, tmp_path / "disk", size_mib=64, label="test")
    said = run(("debugfs", "-R", "stat /file", tmp_path / "disk"), timeout_s=60).stdout.split()
    facts = dict(itertools.pairwise(said))
    assert (facts["User:"], facts["Group:"], facts["Mode:"]) == ("1000", "8", "04750")


def test_a_tree_that_does_not_fit_is_said(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "big").write_bytes(b"x" * (80 << 20))
    with pytest.raises(ImageBroken, match="don't fit on a disk of 64 MiB"):
        ext4.make(tree, tmp_path / "disk", size_mib=64, label="test")
