"""An agent for each module; the suite speaks to it over the network only, as it will in a guest."""

import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from envd_agent import folder, running  # noqa: F401 - a fixture
from wrennd.core.deadline import Deadline
from wrennd.linux.cgroup import Cgroup, Hierarchy


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
def freezable():
    """One that has groups to freeze, in a cgroup of the test's own."""
    with freezable_agent() as agent:
        yield agent


@pytest.fixture
def tree(tmp_path):
    """What an agent may change and look for in the place of a guest's own files."""
    for name in ("etc/wrenn/resume.d", "proc/sys/kernel", "usr/lib/wrenn", "var/lib/dbus", "run"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/hostname").write_text("former\n")
    (tmp_path / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 former\n10.0.0.1 former\n")
    return tmp_path


@pytest.fixture
def restorable(tree):
    """One that has groups to freeze, and a tree of files that say who it is."""
    with freezable_agent("--root", os.fspath(tree)) as agent:
        yield agent


@contextmanager
def freezable_agent(*options):
    hierarchy = Hierarchy.find()
    if hierarchy is None or os.geteuid() != 0:
        pytest.skip("needs root and cgroup2 to make groups")
    root = Path(hierarchy.mount) / f"wrenn-test-envd-{os.getpid()}"
    root.mkdir()
    try:
        with running("--cgroups", os.fspath(root), *options) as agent:
            yield agent
    finally:
        for path in (*root.glob("*/"), root):
            Cgroup(path).remove(Deadline.after(60))
