import os
import subprocess

import pytest

from wrennd.core.deadline import Deadline
from wrennd.linux.cgroup import Hierarchy

PARENT = f"wrenn-test{os.getpid()}"


@pytest.fixture
def hierarchy():
    found = Hierarchy.find()
    assert found is not None, "the tests of the root tier need a cgroup2 mount"
    yield found
    for child in (found.mount / PARENT).glob("*/"):
        found.group(PARENT, child.name).remove(Deadline.after(60))
    if (found.mount / PARENT).exists():
        (found.mount / PARENT).rmdir()


def test_what_is_inside_dies_with_the_group(hierarchy):
    group = hierarchy.make(PARENT, "one")
    with subprocess.Popen(["sleep", "1000"]) as child:
        group.procs.write_text(str(child.pid))
        assert group.pids() == [child.pid]
        group.kill()
        assert child.wait(10) == -9
    group.remove(Deadline.after(60))
    group.remove(Deadline.after(60))
    assert not group.path.exists()
    assert group.pids() == []


def test_removing_kills_first(hierarchy):
    group = hierarchy.make(PARENT, "two")
    with subprocess.Popen(["sleep", "1000"]) as child:
        group.procs.write_text(str(child.pid))
        group.remove(Deadline.after(60))
        assert child.wait(10) == -9
    assert not group.path.exists()


def test_a_limit_without_its_controller_is_reported_not_pretended(hierarchy):
    group = hierarchy.make(PARENT, "three")
    has_pids = (group.path / "pids.max").exists()
    assert group.limit("pids.max", "64") is has_pids
    if has_pids:
        assert (group.path / "pids.max").read_text() == "64\n"
    assert group.limit("no.such.limit", "1") is False
