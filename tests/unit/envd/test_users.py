"""Accounts and groups from their files' text."""

import pytest

from wrennd.envd import users
from wrennd.envd.connect import RpcError

PASSWD = """root:x:0:0:root:/root:/bin/bash
user:x:1000:1001:,,,:/home/user:/bin/bash
user:x:7:7::/other:/bin/sh
nohome:x:5:6:::/bin/sh
broken:x:a:b::/:/bin/sh
short:x:1
+nis

"""
GROUP = """root:x:0:
sudo:x:27:user,other
user:x:1001:user
docker:x:998:other
wide:x:99:root,user
bad:x:z:user
"""


def test_accounts():
    accounts = users.parse_passwd(PASSWD)
    assert set(accounts) == {"root", "user", "nohome"}
    user = accounts["user"]
    assert (user.uid, user.gid, user.home) == (1000, 1001, "/home/user")
    assert accounts["nohome"].home == "/"


def test_groups_begin_with_the_primary_one():
    account = users.parse_passwd(PASSWD)["user"]
    assert users.parse_groups(GROUP, account) == [1001, 27, 99]
    assert users.parse_groups("", account) == [1001]


def test_unknown_users_are_refused():
    with pytest.raises(RpcError) as caught:
        users.find("nobody-of-that-name")
    assert caught.value.code == "unauthenticated"


def test_there_is_always_a_default():
    assert users.default().name


def test_a_file_is_read_again_when_it_has_changed(tmp_path):
    path = tmp_path / "group"
    file = users._File(str(path))
    assert file.read() == ""
    path.write_text("a")
    assert file.read() == file.read() == "a"
    (tmp_path / "new").write_text("b")
    (tmp_path / "new").rename(path)
    assert file.read() == "b"
    path.unlink()
    assert file.read() == ""
