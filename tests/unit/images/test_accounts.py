import os
import stat

import pytest

from wrennd.images import accounts
from wrennd.images.recipe import User

ME = os.getuid()  # homes are given to their users; without root, only to oneself


def user(**changes):
    values = {"name": "user", "uid": ME or 1000, "home": "/home/user", "shell": "/bin/sh"}
    return User(**({"sudo": False} | values | changes))


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nmail:x:8:\n")
    (tmp_path / "etc/shadow").write_text("root:*:19000::::::\n")
    (tmp_path / "etc/shadow").chmod(0o640)
    return tmp_path


def test_a_user_is_in_every_file_and_has_no_password(tree):
    accounts.add(tree, [user()])
    number = ME or 1000
    line = f"user:x:{number}:{number}::/home/user:/bin/sh"
    assert (tree / "etc/passwd").read_text().splitlines()[-1] == line
    assert (tree / "etc/group").read_text().splitlines()[-1] == f"user:x:{number}:"
    assert (tree / "etc/shadow").read_text().splitlines()[-1] == "user:!:::::::"
    assert stat.S_IMODE((tree / "etc/shadow").stat().st_mode) == 0o640
    assert not (tree / "etc/gshadow").exists()
    home = (tree / "home/user").stat()
    assert (home.st_uid, home.st_gid, stat.S_IMODE(home.st_mode)) == (number, number, 0o755)
    assert not (tree / "etc/sudoers.d").exists()


def test_a_home_begins_as_the_skeleton(tree):
    (tree / "etc/skel").mkdir()
    (tree / "etc/skel/.profile").write_text("hello")
    accounts.add(tree, [user()])
    assert (tree / "home/user/.profile").read_text() == "hello"
    assert (tree / "home/user/.profile").stat().st_uid == (ME or 1000)


def test_sudo_needs_no_password(tree):
    accounts.add(tree, [user(sudo=True)])
    path = tree / "etc/sudoers.d/user"
    assert path.read_text() == "user ALL=(ALL:ALL) NOPASSWD: ALL\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o440


@pytest.mark.parametrize("taken", [{"name": "root"}, {"name": "mail"}, {"uid": 8}])
def test_a_taken_name_or_number_is_refused_before_anything_is_written(tree, taken):
    before = (tree / "etc/passwd").read_text()
    with pytest.raises(ValueError, match="already"):
        accounts.add(tree, [user(**taken)])
    assert (tree / "etc/passwd").read_text() == before
