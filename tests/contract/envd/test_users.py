"""Acting for other users, which takes root."""

import json
from dataclasses import dataclass

import pytest

from envd_agent import PROGRAM, running, user_header

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Other:
    """A user who isn't root, as the agent's machine knows it."""

    name: str
    uid: str
    gid: str
    home: str

    @property
    def header(self):
        return user_header(self.name)


@pytest.fixture
def other(agent):
    """`nobody` where there is one, which has no home; else `user`."""
    lines = agent.get("/etc/passwd")[2].decode().splitlines()
    accounts = {line.split(":")[0]: line.split(":") for line in lines}
    found = accounts.get("nobody") or accounts["user"]
    return Other(found[0], found[2], found[3], found[5])


def test_processes_run_as_the_user(agent, other):
    done = agent.sh("id -u; id -g; id -G; echo $USER $LOGNAME $HOME", headers=other.header)
    uid, gid, groups, names = done.output["stdout"].decode().splitlines()
    assert (uid, gid, groups.split()[0]) == (other.uid, other.gid, other.gid)
    assert names == f"{other.name} {other.name} {other.home}"


def test_rights_can_not_be_taken_back(agent, other):
    status = agent.run("cat", "/proc/self/status", headers=other.header).output["stdout"].decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [other.uid] * 4
    assert fields["Gid"].split() == [other.gid] * 4
    assert int(fields["CapEff"], 16) == 0


def test_supplementary_groups(agent, other):
    lines = agent.get("/etc/group")[2].decode().splitlines()
    for name, header in (("root", user_header("root")), (other.name, other.header)):
        groups = agent.run("id", "-G", headers=header).output["stdout"].decode().split()
        listed = [line.split(":") for line in lines]
        assert set(groups[1:]) == {
            gid for _, _, gid, members in listed if name in members.split(",") and gid != groups[0]
        }


def test_a_home_that_does_not_exist_is_replaced_by_the_root(agent, other):
    if other.name != "nobody":
        agent.sh(f"mv {other.home} {other.home}.away", headers=user_header("root"))
    try:
        assert agent.sh("pwd", headers=other.header).output["stdout"] == b"/\n"
        failed = agent.run("true", cwd="~", headers=other.header)
        assert failed.error["code"] == "invalid_argument"
    finally:
        if other.name != "nobody":
            agent.sh(f"mv {other.home}.away {other.home}", headers=user_header("root"))


@pytest.fixture
def closed(agent, folder):
    """A directory that only root may enter."""
    agent.sh(f"chown 0:0 {folder}; chmod 700 {folder}", headers=user_header("root"))
    return folder


def test_the_directory_is_entered_with_the_rights_of_the_user(agent, closed, other):
    failed = agent.run("true", cwd=closed, headers=other.header)
    assert failed.error["code"] == "invalid_argument"
    agent.put(f"{closed}/script", b"#!/bin/sh\n", mode="755")
    failed = agent.run(f"{closed}/script", headers=other.header)
    assert failed.error["code"] == "permission_denied"


def test_a_directory_on_path_that_is_closed_to_the_user_hides_nothing(agent, closed, other):
    path = {"PATH": f"{closed}:/usr/bin:/bin"}
    failed = agent.run("no-such-command", envs=path, headers=other.header)
    assert failed.error["code"] == "not_found"
    assert agent.run("true", envs=path, headers=other.header).end["exitCode"] == 0


def test_default_user(fresh_agent, other):
    order = json.dumps({"defaultUser": other.name})
    assert fresh_agent.http("POST", "/init", order)[0] == 204
    assert fresh_agent.run("id", "-un").output["stdout"].decode() == f"{other.name}\n"
    done = fresh_agent.run("id", "-un", headers=user_header("root"))
    assert done.output["stdout"] == b"root\n"


def test_uploads_belong_to_the_user(agent, closed, other):
    assert agent.put(f"{closed}/new/file", b"x", username=other.name)[0] == 200
    script = f"cd {closed}; stat -c '%u %g' . new new/file"
    done = agent.sh(script, headers=user_header("root"))
    theirs = f"{other.uid} {other.gid}"
    assert done.output["stdout"].decode().splitlines() == ["0 0", theirs, theirs]


def test_an_agent_that_goes_first_gives_commands_their_usual_place():
    with running(program=f"import os; os.nice(-5); {PROGRAM}") as agent:
        for name in ("root", "nobody"):
            done = agent.run("cat", "/proc/self/stat", headers=user_header(name))
            assert done.output["stdout"].split()[18] == b"0"
