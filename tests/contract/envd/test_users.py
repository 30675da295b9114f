"""Acting for other users, which takes root."""

import json
import pwd
from urllib.parse import urlencode

import pytest

from envd_agent import user_header

pytestmark = pytest.mark.root
NOBODY = pwd.getpwnam("nobody")


def test_processes_run_as_the_user(agent):
    done = agent.sh("id -u; id -g; id -G; echo $USER $LOGNAME $HOME", headers=user_header("nobody"))
    uid, gid, groups, names = done.output["stdout"].decode().splitlines()
    assert (int(uid), int(gid)) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert groups == str(NOBODY.pw_gid)
    assert names == f"nobody nobody {NOBODY.pw_dir}"


def test_rights_can_not_be_taken_back(agent):
    done = agent.sh("grep -E '^(Uid|Gid|CapEff)' /proc/self/status", headers=user_header("nobody"))
    lines = done.output["stdout"].decode().split()
    assert lines[1:5] == [str(NOBODY.pw_uid)] * 4
    assert int(lines[-1], 16) == 0


def test_supplementary_groups(agent):
    ours = {g for g in agent.sh("id -G", headers=user_header("root")).output["stdout"].split()}
    assert b"0" in ours
    # Every Debian has these: `games` is the member of no group but its own.
    done = agent.sh("id -G", headers=user_header("games"))
    assert done.output["stdout"].split() == [str(pwd.getpwnam("games").pw_gid).encode()]


def test_a_home_that_does_not_exist_is_replaced_by_the_root(agent):
    assert agent.sh("pwd", headers=user_header("nobody")).output["stdout"] == b"/\n"
    failed = agent.run("true", cwd="~", headers=user_header("nobody"))
    assert failed.error["code"] == "invalid_argument"


def test_the_directory_is_entered_with_the_rights_of_the_user(agent, tmp_path):
    tmp_path.chmod(0o700)
    failed = agent.run("true", cwd=str(tmp_path), headers=user_header("nobody"))
    assert failed.error["code"] == "invalid_argument"
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    failed = agent.run(str(script), headers=user_header("nobody"))
    assert failed.error["code"] == "permission_denied"


def test_a_directory_on_path_that_is_closed_to_the_user_hides_nothing(agent, tmp_path):
    tmp_path.chmod(0o700)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    failed = agent.run("no-such-command", envs=path, headers=user_header("nobody"))
    assert failed.error["code"] == "not_found"
    assert agent.run("true", envs=path, headers=user_header("nobody")).end["exitCode"] == 0


def test_default_user(fresh_agent):
    order = json.dumps({"defaultUser": "nobody"})
    assert fresh_agent.http("POST", "/init", order)[0] == 204
    assert fresh_agent.run("id", "-un").output["stdout"] == b"nobody\n"
    done = fresh_agent.run("id", "-un", headers=user_header("root"))
    assert done.output["stdout"] == b"root\n"


def test_uploads_belong_to_the_user(agent, tmp_path):
    path = tmp_path / "new" / "file"
    target = "/files?" + urlencode({"path": str(path), "username": "nobody"})
    kind = {"Content-Type": "application/octet-stream"}
    assert agent.http("POST", target, b"x", kind)[0] == 200
    for one in (path, path.parent):
        assert (one.stat().st_uid, one.stat().st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert tmp_path.stat().st_uid == 0
