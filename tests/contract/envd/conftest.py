"""An agent for each module; the suite speaks to it over the network only, as it will in a guest."""

import os
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
    hierarchy = Hierarchy.find()
    if hierarchy is None or os.geteuid() != 0:
        pytest.skip("needs root and cgroup2 to make groups")
    root = Path(hierarchy.mount) / f"wrenn-test-envd-{os.getpid()}"
    root.mkdir()
    try:
        with running("--cgroups", os.fspath(root)) as agent:
            yield agent
    finally:
        for path in (*root.glob("*/"), root):
            Cgroup(path).remove(Deadline.after(10))
