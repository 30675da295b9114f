"""An agent for each module; the suite speaks to it over the network only, as it will in a guest."""

import os

import pytest

from envd_agent import (
    INSTALLATION,
    PROGRAM,
    Tree,
    folder,  # noqa: F401 - a fixture
    running,
    running_with_groups,
)
from leaks import LeakCheck


@pytest.fixture(scope="module", autouse=True)
def _agents_leave_nothing():
    """Each module ends as it began: no process of its agents, no group, no descriptor."""
    check = LeakCheck()
    check.watch(INSTALLATION)
    yield
    check.finish()


@pytest.fixture(scope="module")
def agent():
    with running() as agent:
        yield agent


@pytest.fixture
def fresh_agent():
    """One that no other test has told anything."""
    with running() as agent:
        yield agent


@pytest.fixture
def new_agent(fresh_agent):
    """One that was just started."""
    return fresh_agent


@pytest.fixture
def local_agent(fresh_agent):
    """Of what can only be told, or only be done, where it is a process of this machine."""
    return fresh_agent


@pytest.fixture
def limited_agent():
    """One that may have 24 descriptors."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))"
    with running(program=f"{limit}; {PROGRAM}") as agent:
        yield agent


@pytest.fixture
def freezable():
    """One that has groups to freeze."""
    with running_with_groups() as agent:
        yield agent


@pytest.fixture
def local_freezable(freezable):
    """As `local_agent`."""
    return freezable


@pytest.fixture
def restorable(tmp_path):
    """One that has groups to freeze, and a tree of files that say who it is."""
    for name in ("etc/wrenn/resume.d", "proc/sys/kernel", "usr/lib/wrenn", "var/lib/dbus", "run"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/hostname").write_text("former\n")
    (tmp_path / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 former\n")
    with running_with_groups("--root", os.fspath(tmp_path)) as agent:
        yield agent


@pytest.fixture
def tree(restorable, tmp_path):
    """What it may change and look for in the place of a guest's own files."""
    return Tree(restorable, os.fspath(tmp_path))
