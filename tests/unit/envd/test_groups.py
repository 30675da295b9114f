"""Groups in a directory that only looks like a cgroup, and where there are none."""

import os

import pytest

from wrennd.envd.freeze import MAX_WAIT_MS, parse_wait
from wrennd.envd.groups import Groups, memory_limit


def test_without_a_place_there_are_none():
    groups = Groups(lambda: "")
    assert groups.procs(has_terminal=True) == ""
    assert groups.paths() == []
    groups.set_frozen(frozen=True)


def test_a_place_that_is_none_is_told_once(capsys):
    groups = Groups(lambda: "/no/such/place")
    assert groups.procs(has_terminal=False) == ""
    assert groups.paths() == []
    assert capsys.readouterr().err.count("there will be no cgroups") == 1


def test_paths(tmp_path):
    for name in ("user", "ptys", "hooks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.freeze").touch()
    groups = Groups(lambda: os.fspath(tmp_path))
    assert groups.procs(has_terminal=False) == f"{tmp_path}/user/cgroup.procs"
    assert groups.procs(has_terminal=True) == f"{tmp_path}/ptys/cgroup.procs"
    groups.set_frozen(frozen=True)
    assert (tmp_path / "ptys" / "cgroup.freeze").read_text() == "1"
    assert groups.hooks() == f"{tmp_path}/hooks/cgroup.procs"
    assert (tmp_path / "hooks" / "cgroup.freeze").read_text() == "0"
    assert (tmp_path / "user" / "cgroup.freeze").read_text() == "1"
    groups.set_frozen(frozen=False)
    assert (tmp_path / "user" / "cgroup.freeze").read_text() == "0"


@pytest.mark.parametrize(
    ("total_mib", "limit_mib"), [(256, 224), (512, 448), (1024, 896), (8192, 8064)]
)
def test_users_get_most_of_the_memory(total_mib, limit_mib):
    assert memory_limit(total_mib << 20) == limit_mib << 20


def test_waits():
    assert parse_wait("") == 5000
    assert parse_wait("maxWaitMs=0") == 0
    assert parse_wait("maxWaitMs=99999999") == MAX_WAIT_MS
