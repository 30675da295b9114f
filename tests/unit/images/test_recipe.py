import re
from pathlib import Path

import pytest

from wrennd.core.errors import NotFound
from wrennd.images import recipe
from wrennd.images.recipe import Builder, ImageRecipe, KernelRecipe, User

USER = {"name": "user", "uid": 1000, "home": "/home/user", "shell": "/bin/sh", "sudo": False}
IMAGE = {"name": "x", "builder": Builder.BUSYBOX, "disk_mib": 512, "users": ()}
IMAGE |= {"file": Path("x.toml")}
GOOD = 'builder = "busybox"\ndisk_mib = 64\n'


def test_there_are_two_images():
    assert recipe.image_names() == ["base", "busybox"]


def test_base_is_what_people_expect():
    base = recipe.image("base")
    assert base.builder is Builder.DEBIAN
    wanted = "bash coreutils python3 python-is-python3 python3-pip git curl ca-certificates"
    assert {*wanted.split(), "procps", "sudo", "iproute2", "ncurses-bin"} <= {*base.packages}
    (user,) = base.users
    assert (user.name, user.uid, user.home, user.shell) == ("user", 1000, "/home/user", "/bin/bash")
    assert user.sudo


def test_busybox_installs_no_packages():
    assert recipe.image("busybox").packages == ()


@pytest.mark.parametrize("name", ["nosuch", "kernel", "runtime", "../base", ""])
def test_what_is_no_image_is_not_found(name):
    with pytest.raises(NotFound, match=re.escape(repr(name))) as caught:
        recipe.image(name)
    assert "base, busybox" in caught.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Bad Name"},
        {"name": "x:y"},
        {"uid": 0},
        {"uid": 60000},
        {"home": "home"},
        {"shell": "sh"},
    ],
)
def test_impossible_users_are_refused(wrong):
    with pytest.raises(ValueError, match=r"user|home"):
        User(**(USER | wrong))


@pytest.mark.parametrize(
    "wrong", [{"disk_mib": 1}, {"packages": ("a b",)}, {"packages": ("-o=x",)}]
)
def test_impossible_images_are_refused(wrong):
    with pytest.raises(ValueError, match=r"disk|package"):
        ImageRecipe(**(IMAGE | wrong))


def test_a_package_can_not_be_an_option_of_apt():
    with pytest.raises(ValueError, match="package"):
        KernelRecipe(package="--yes", modules=())


def test_every_file_that_guests_get_is_here():
    for name in ("wrenn-init.sh", "initrd-init.sh", "fstab"):
        assert recipe.text(name)


def test_a_recipe_may_lie_anywhere(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(GOOD)
    made = recipe.image_in(file, "other")
    assert (made.name, made.file, made.disk_mib, made.users) == ("other", file, 64, ())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("builder = [", "value"),
        ('builder = "nixos"\ndisk_mib = 64', "nixos"),
        ("disk_mib = 64", "nothing"),
        ('builder = "busybox"', "disk_mib"),
        (GOOD + "colour = 1", "colour, which means nothing"),
        (GOOD + 'users = "root"', "users must be tables"),
        (GOOD + '[[users]]\nname = "x"', "incomplete"),
        (GOOD + 'packages = ["-y"]', "package"),
        ('builder = "busybox"\ndisk_mib = "64"', "disk_mib"),
        (GOOD + 'packages = "git"', "packages"),
        (GOOD + "packages = [1]", "package"),
    ],
)
def test_a_wrong_recipe_is_refused_by_what_is_wrong(tmp_path, text, why):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=why):
        recipe.image_in(file, "mine")
