"""`wrenn image`: build, import, rm, ls, as a user sees them."""

import contextlib
import json
import os
from pathlib import Path

import pytest

from foreign_tree import archive, make_alpine_like
from wrenn_command import running, wrenn
from wrennd.core.deadline import Deadline
from wrennd.linux.files import locked
from wrennd.storage.images import ImageStore

RECIPE = 'builder = "busybox"\ndisk_mib = 64\n'


def assert_refused(done, *words):
    assert done.returncode == 125, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert said[0].startswith("wrenn: ")
    assert len(said) == 2, done.stderr
    assert said[1].startswith("  hint: ")
    for word in words:
        assert word in done.stderr


@pytest.fixture
def nothing_new(layout):
    """No name, no image without a name, and nothing half-made is there that was not before."""
    places = (layout.images, layout.names, layout.cache, layout.kernels)

    def look():
        with locked(layout.setup_lock):
            named = {link.resolve() for link in layout.names.iterdir()}
            nameless = {*layout.images.iterdir()} - named
            half = {path for place in places for path in place.glob("*.tmp")}
            return {path.name for path in layout.names.iterdir()}, nameless | half

    names, before = look()
    yield
    names_after, after = look()
    assert names_after <= names | {"base", "busybox"}
    assert after <= before


@pytest.fixture
def named(data_dir, nothing_new):
    """A name for an image that is removed at the end."""
    name = "test-image"
    yield name
    wrenn(data_dir, "image", "rm", name)


def listed(data_dir):
    found = json.loads(wrenn(data_dir, "image", "ls", "--json").stdout)["images"]
    return {row["name"]: row for row in found}


def make_archive(path, *names, has_shell=True):
    with archive(path, has_shell=has_shell) as made:
        for name in names:
            made.add(name)


@pytest.mark.parametrize(
    ("name", "has_shell", "word"),
    [
        ("/etc/x", True, "'/etc/x' is absolute"),
        ("../x", True, "'../x' leads upwards"),
        ("caf\udce9", True, "'caf\\udce9' is not UTF-8"),
        ("etc/x", False, "no /bin/sh"),
    ],
)
def test_a_bad_archive(data_dir, nothing_new, tmp_path, name, has_shell, word):
    make_archive(tmp_path / "x.tar", name, has_shell=has_shell)
    done = wrenn(data_dir, "image", "import", "test-image", tmp_path / "x.tar", "--disk", "128")
    assert_refused(done, os.fspath(tmp_path / "x.tar"), word)
    assert "test-image" not in listed(data_dir)


def test_a_tree_that_is_too_large_for_its_disk(data_dir, nothing_new, tmp_path):
    with archive(tmp_path / "x.tar") as made:
        made.add("big", data=bytes(65 << 20))
    done = wrenn(data_dir, "image", "import", "test-image", tmp_path / "x.tar", "--disk", "64")
    assert_refused(done, "don't fit on a disk of 64 MiB", "--disk")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("import", "base", "x.tar"), "builds itself"),
        (("import", "busybox", "x.tar"), "builds itself"),
        (("import", "../x", "x.tar"), "not a valid image name"),
        (("import", "mine", "gone.tar"), "No such file"),
        (("import", "mine", "/"), "data directory"),
        (("import", "mine", "/dev/null"), "neither a directory nor a file"),
        (("import", "mine", "x.tar", "--disk", "1"), "1 MiB"),
        (("build", "gone.toml"), "No such file"),
        (("build", "x.tar"), "recipe x.tar is wrong"),
        (("build", "base.toml"), "another recipe"),
        (("build", "Bad Name.toml"), "not a valid image name"),
        (("rm", "nosuch"), "there is no image named 'nosuch'"),
        (("rm", ".."), "not a valid image name"),
    ],
)
def test_bad_arguments(data_dir, nothing_new, tmp_path, arguments, word):
    make_archive(tmp_path / "x.tar")
    for name in ("base.toml", "Bad Name.toml"):
        (tmp_path / name).write_text(RECIPE)
    assert_refused(wrenn(data_dir, "image", *arguments, cwd=tmp_path), word)


def test_import_ls_and_rm(data_dir, named, tmp_path):
    make_archive(tmp_path / "x.tar")
    command = ("image", "import", named, tmp_path / "x.tar", "--disk", "128")
    done = wrenn(data_dir, *command)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    row = listed(data_dir)[named]
    assert row["size_bytes"] == 128 << 20
    assert 0 < row["disk_bytes"] < 128 << 20
    assert 0 <= row["age_s"] < 100
    lines = [line.split() for line in wrenn(data_dir, "image", "ls").stdout.splitlines()]
    assert lines[0] == ["NAME", "DIGEST", "DISK", "TAKES", "AGE", "FROM"]
    (line,) = [line for line in lines if line[0] == named]
    assert line[2:4] == ["128.0", "MiB"]
    assert line[-1] == "import"
    assert_refused(wrenn(data_dir, *command), f"{named!r} already", f"wrenn image rm {named}")
    done = wrenn(data_dir, "image", "rm", named)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert named not in listed(data_dir)


def test_a_recipe_of_ones_own_is_built_and_runs(data_dir, layout, named, tmp_path):
    file = tmp_path / "mine.toml"
    user = 'name = "me"\nuid = 1234\nhome = "/home/me"\nshell = "/bin/sh"\nsudo = false\n'
    file.write_text(f"{RECIPE}[[users]]\n{user}")
    done = wrenn(data_dir, "image", "build", file, "--name", named)
    assert done.returncode == 0, done.stderr
    assert listed(data_dir)[named]["size_bytes"] == 64 << 20
    done = wrenn(data_dir, "run", "--template", named, "--user", "me", "--", "id", "-u")
    assert (done.returncode, done.stdout) == (0, "1234\n"), done.stderr
    assert wrenn(data_dir, "image", "rm", named).returncode == 0
    assert [*layout.cache.glob(f"tree-{named}-*")] == []


def test_an_image_is_removed_while_a_sandbox_of_it_runs(data_dir, layout, named, tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE)
    assert (
        wrenn(data_dir, "image", "build", tmp_path / "mine.toml", "--name", named).returncode == 0
    )
    found = ImageStore(layout).find(named)
    script = "echo up; cat; wc -c < /etc/hostname"
    command = ("run", "-i", "--template", named, "--user", "root", "--", "sh", "-c", script)
    with running(data_dir, *command) as child:
        assert child.stdout.readline() == b"up\n"
        assert wrenn(data_dir, "image", "rm", named).returncode == 0
        assert named not in listed(data_dir)
        assert found.rootfs.exists(), "its record names it"
        out, _ = child.communicate(b"still here\n", timeout=60)
        assert (child.returncode, out) == (0, b"still here\n21\n")


def test_a_musl_distribution_is_imported_and_runs(data_dir, layout, named, tmp_path):
    """Made here, as Alpine's: neither glibc nor bash; a program that musl's loader starts."""
    tree = tmp_path / "alpine"
    make_alpine_like(tree, layout)
    done = wrenn(data_dir, "image", "import", named, tree)
    assert done.returncode == 0, done.stderr
    script = "hello; cat /etc/alpine-release; id -un; stat -c %a /tmp; ls -l /dev/null | cut -c1"
    done = wrenn(data_dir, "run", "--template", named, "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "hello from musl\n3.20.0\nuser\n1777\nc\n")


def test_an_import_that_is_killed_takes_its_children_along_and_the_next_cleans_up(
    data_dir, layout, named, tmp_path
):
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/sh").write_text("#!/bin/true\n")
    (tree / "bin/sh").chmod(0o755)
    with (tree / "endless").open("wb") as file:
        file.truncate(1 << 40)
    command = ("image", "import", named, tree, "--disk", "4096")
    with running(data_dir, *command) as child:
        assert any(b"unpacking" in line for line in child.stderr)
        deadline = Deadline.after(120)
        while not readers_of(tree):
            deadline.check("the start of the child that reads the tree")
        child.kill()
        child.wait(60)
        deadline = Deadline.after(60)
        while readers_of(tree):
            deadline.check("the end of the killed import's children")
    (tree / "endless").unlink()
    assert named not in listed(data_dir)
    done = wrenn(data_dir, *command)
    assert done.returncode == 0, done.stderr
    assert [*layout.cache.glob("*.tmp")] == []


def readers_of(tree):
    """Processes other than `wrenn` itself whose arguments name it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            if b"wrennd.images.pack" in line and os.fsencode(tree) in line:
                found.append(path)
    return found
