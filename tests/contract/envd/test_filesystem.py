"""filesystem.Filesystem but for watches, wherever the agent runs."""

import os
import re

import pytest

from envd_agent import user_header


@pytest.fixture
def owner(agent):
    """Name and group of the default user."""
    return agent.sh("id -un; id -gn").output["stdout"].decode().split()


def listed(agent, path, **message):
    status, body = agent.fs("ListDir", {"path": path, **message})
    assert status == 200, body
    return [entry["path"].removeprefix(path + "/") for entry in body["entries"]]


def stat(agent, path):
    status, body = agent.fs("Stat", {"path": path})
    assert status == 200, body
    return body["entry"]


def test_stat_of_a_file(agent, folder, owner):
    agent.put(f"{folder}/a file", b"1234")
    found = stat(agent, f"{folder}/a file")
    moment = found.pop("modifiedTime")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", moment)
    assert found == {
        "name": "a file",
        "type": "FILE_TYPE_FILE",
        "path": f"{folder}/a file",
        "size": "4",
        "mode": 0o644,
        "permissions": "-rw-r--r--",
        "owner": owner[0],
        "group": owner[1],
    }


def test_times_are_exact(agent, folder):
    agent.sh(
        f"touch -d '2021-02-03 04:05:06 UTC' {folder}/old || touch -t 202102030405.06 {folder}/old"
    )
    seconds = agent.sh(f"stat -c %Y {folder}/old").output["stdout"].decode().strip()
    assert seconds == "1612325106"
    assert stat(agent, f"{folder}/old")["modifiedTime"] == "2021-02-03T04:05:06.000000000Z"


def test_stat_of_a_directory(agent, folder):
    agent.sh(f"mkdir -m 1777 {folder}/d")
    found = stat(agent, f"{folder}/d/")
    assert (found["type"], found["name"], found["path"]) == (
        "FILE_TYPE_DIRECTORY",
        "d",
        f"{folder}/d",
    )
    assert (found["mode"], found["permissions"]) == (0o777, "dtrwxrwxrwx")
    assert stat(agent, "/")["name"] == "/"


def test_stat_of_symlinks(agent, folder):
    agent.put(f"{folder}/target", b"12345", mode="600")
    agent.sh(f"cd {folder}; ln -s target one; ln -s {folder}/one two; ln -s . dir; ln -s no broken")
    for name in ("one", "two"):
        found = stat(agent, f"{folder}/{name}")
        assert (found["type"], found["mode"]) == ("FILE_TYPE_FILE", 0o600)
        assert found["symlinkTarget"] == f"{folder}/target"
        assert found["isSymlink"] is True
        assert found["permissions"] == "Lrwxrwxrwx"
        assert found["path"] == f"{folder}/{name}"
    assert stat(agent, f"{folder}/dir")["type"] == "FILE_TYPE_DIRECTORY"
    assert stat(agent, f"{folder}/broken")["type"] == "FILE_TYPE_UNSPECIFIED"
    assert stat(agent, f"{folder}/broken")["symlinkTarget"] == f"{folder}/no"


def test_stat_of_what_is_neither(agent, folder):
    agent.sh(f"mkfifo -m 640 {folder}/fifo")
    found = stat(agent, f"{folder}/fifo")
    assert (found["type"], found["permissions"]) == ("FILE_TYPE_UNSPECIFIED", "prw-r-----")
    found = stat(agent, "/dev/null")
    assert (found["type"], found["permissions"]) == ("FILE_TYPE_UNSPECIFIED", "Dcrw-rw-rw-")


def test_stat_of_nothing(agent, folder):
    agent.put(f"{folder}/file")
    for path in (f"{folder}/no", f"{folder}/no/way", f"{folder}/file/below"):
        status, body = agent.fs("Stat", {"path": path})
        assert (status, body["code"]) == (404, "not_found")
        assert path in body["message"]


def test_paths_begin_at_home(agent):
    home = agent.sh("echo ~").output["stdout"].decode().strip()
    for path in ("", "~", "~/", ".", "x/.."):
        assert stat(agent, path)["path"] == home
    assert stat(agent, "~/../..//proc/")["path"] == os.path.normpath(f"{home}/../../proc")


def test_paths_of_another_user(agent):
    status, body = agent.fs("Stat", {"path": "~"}, **user_header("root"))
    assert (status, body["entry"]["path"]) == (200, "/root")
    status, body = agent.fs("Stat", {"path": "~"}, **user_header("nobody-of-that-name"))
    assert (status, body["code"]) == (401, "unauthenticated")
    assert body["message"] == "invalid username: 'nobody-of-that-name'"


def test_list_is_in_the_order_of_a_walk(agent, folder):
    names = ["a", "a/1", "a/2", "a/2/deep", "a/2/deep/er", "a-b", "b", "b.txt", "ü", "Z"]
    agent.sh(f"cd {folder}; mkdir -p a/2/deep b; touch a/1 a/2/deep/er a-b b.txt ü Z")
    walked = ["Z", "a", "a/1", "a/2", "a/2/deep", "a/2/deep/er", "a-b", "b", "b.txt", "ü"]
    assert sorted(names) == sorted(walked)
    assert listed(agent, folder, depth=10) == walked
    top = [name for name in walked if "/" not in name]
    assert listed(agent, folder) == listed(agent, folder, depth=0) == top
    assert listed(agent, folder, depth=2) == [n for n in walked if n.count("/") < 2]
    assert listed(agent, folder, depth=2**32 - 1) == walked


def test_list_of_an_empty_directory(agent, folder):
    assert agent.fs("ListDir", {"path": folder}) == (200, {"entries": []})


def test_list_through_a_symlink_keeps_the_requested_path(agent, folder):
    agent.sh(f"cd {folder}; mkdir real; touch real/x; ln -s real link; ln -s .. real/up")
    status, body = agent.fs("ListDir", {"path": f"{folder}/link", "depth": 9})
    assert status == 200
    # The link inside is told, but not followed.
    assert [entry["path"] for entry in body["entries"]] == [
        f"{folder}/link/up",
        f"{folder}/link/x",
    ]


def test_list_refusals(agent, folder):
    agent.sh(f"cd {folder}; touch file; ln -s loop loop")
    for path, status, code in (
        ("no", 404, "not_found"),
        ("file", 400, "invalid_argument"),
        ("file/x", 400, "invalid_argument"),
        ("loop", 400, "failed_precondition"),
    ):
        found = agent.fs("ListDir", {"path": f"{folder}/{path}"})
        assert (found[0], found[1]["code"]) == (status, code)


def test_names_that_are_no_utf8_can_be_listed(agent, folder):
    agent.sh(f"cd {folder}; touch \"$(printf 'a\\377b')\"")
    assert listed(agent, folder) == ["a\ufffdb"]


def test_a_long_list_comes_whole(agent, folder):
    agent.sh(f"cd {folder}; seq 1000 3999 | xargs touch")
    assert listed(agent, folder) == [str(number) for number in range(1000, 4000)]


def test_make_dir(agent, folder, owner):
    status, body = agent.fs("MakeDir", {"path": f"{folder}/a/b/c"})
    assert status == 200
    assert body["entry"]["type"] == "FILE_TYPE_DIRECTORY"
    assert body["entry"]["name"] == "c"
    for path in ("a", "a/b", "a/b/c"):
        found = stat(agent, f"{folder}/{path}")
        assert (found["mode"], found["owner"], found["group"]) == (0o755, *owner)


def test_make_dir_for_another_user(agent, folder):
    assert agent.fs("MakeDir", {"path": f"{folder}/r"}, **user_header("root"))[0] == 200
    assert stat(agent, f"{folder}/r")["owner"] == "root"


def test_make_dir_refusals(agent, folder):
    agent.sh(f"cd {folder}; mkdir dir; touch file; ln -s dir link; ln -s no broken")
    for path, status, code in (
        ("dir", 409, "already_exists"),
        ("link", 409, "already_exists"),
        ("file", 400, "invalid_argument"),
        ("file/x", 400, "invalid_argument"),
    ):
        found = agent.fs("MakeDir", {"path": f"{folder}/{path}"})
        assert (found[0], found[1]["code"]) == (status, code), path
    assert agent.fs("MakeDir", {"path": "~"})[1]["code"] == "already_exists"
    assert agent.fs("MakeDir", {"path": f"{folder}/{'x' * 300}"})[1]["code"] == "invalid_argument"


def test_move(agent, folder, owner):
    agent.put(f"{folder}/a", b"hello", {"X-Metadata-Kind": "v"})
    target = f"{folder}/new/sub/b"
    status, body = agent.fs("Move", {"source": f"{folder}/a", "destination": target})
    assert status == 200
    assert (body["entry"]["path"], body["entry"]["size"]) == (target, "5")
    assert listed(agent, folder, depth=9) == ["new", "new/sub", "new/sub/b"]
    assert stat(agent, f"{folder}/new/sub")["owner"] == owner[0]
    # Onto a file, and a directory of its own.
    agent.put(f"{folder}/c", b"other")
    assert agent.fs("Move", {"source": f"{folder}/c", "destination": target})[0] == 200
    assert agent.get(target)[2] == b"other"
    assert agent.fs("Move", {"source": f"{folder}/new", "destination": f"{folder}/z"})[0] == 200
    assert listed(agent, folder, depth=9) == ["z", "z/sub", "z/sub/b"]


def test_move_refusals(agent, folder):
    agent.sh(f"cd {folder}; mkdir -p dir/sub; touch file")
    for source, destination, code in (
        ("no", "new/x", "not_found"),
        ("dir", "dir/sub/x", "invalid_argument"),
        ("file", "dir", "invalid_argument"),
        ("sub", "x", "not_found"),
        ("file", "file/x", "invalid_argument"),
    ):
        message = {"source": f"{folder}/{source}", "destination": f"{folder}/{destination}"}
        assert agent.fs("Move", message)[1]["code"] == code, source
    assert agent.fs("Move", {"source": "", "destination": folder})[1]["code"] == "invalid_argument"
    assert listed(agent, folder, depth=9) == ["dir", "dir/sub", "file"]


def test_remove(agent, folder):
    agent.sh(f"cd {folder}; mkdir -p keep d/e/f; touch keep/k d/1 d/e/2; ln -s ../keep d/link")
    assert agent.fs("Remove", {"path": f"{folder}/d"}) == (200, {})
    assert agent.fs("Remove", {"path": f"{folder}/d"}) == (200, {})
    assert agent.fs("Remove", {"path": f"{folder}/no/way"}) == (200, {})
    assert listed(agent, folder, depth=9) == ["keep", "keep/k"]
    agent.sh(f"ln -s keep {folder}/link")
    assert agent.fs("Remove", {"path": f"{folder}/link"}) == (200, {})
    assert agent.fs("Remove", {"path": f"{folder}/keep/k"}) == (200, {})
    assert listed(agent, folder, depth=9) == ["keep"]


def test_remove_refuses_what_nobody_can_mean(agent, folder):
    for path in ("/", "", "/..", f"{folder}/" + "../" * 20):
        status, body = agent.fs("Remove", {"path": path})
        assert (status, body["code"]) == (400, "invalid_argument")
    assert agent.fs("Remove", {"path": "/proc"})[1]["code"] in (
        "failed_precondition",
        "permission_denied",
    )
    assert agent.is_alive()


def test_remove_of_a_deep_tree(agent, folder):
    """Deeper than there are descriptors."""
    below = "d/" * 1500
    assert agent.sh(f"mkdir -p {folder}/{below}").end["exitCode"] == 0
    assert agent.fs("Remove", {"path": f"{folder}/d"}) == (200, {})
    assert listed(agent, folder) == []


@pytest.mark.parametrize("method", ["Stat", "ListDir", "MakeDir", "Remove", "CreateWatcher"])
@pytest.mark.parametrize("path", [5, ["/"], "a\0b", "\ud800"])
def test_paths_that_are_none(agent, method, path):
    status, body = agent.fs(method, {"path": path})
    assert (status, body["code"]) == (400, "invalid_argument")
