"""Hooks that take too long, with limits of the test's own."""

from pathlib import Path
from time import monotonic

import pytest

from wrennd.envd.auth import Access
from wrennd.envd.clock import Clock
from wrennd.envd.gate import Gate
from wrennd.envd.groups import Groups
from wrennd.envd.hooks import Hooks
from wrennd.envd.init import Guest, Settings
from wrennd.envd.loop import Loop


def add(folder, name, script):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(root, **limits):
    loop, found = Loop(), []

    def done(reports):
        found.extend(reports)
        loop.stop()

    guest = Guest(Access(), Settings(), Clock(), Gate(), root)
    Hooks(loop, Groups(lambda: ""), guest, done, **limits).run()
    loop.after(30, loop.stop)
    loop.run()
    loop.close()
    return {one["name"]: one["status"] for one in found}


def is_gone(pid):
    """Whoever inherits orphans here may take his time to reap them."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def hooks(tmp_path):
    return tmp_path / "etc/wrenn/resume.d"


@pytest.mark.root
def test_a_hook_that_hangs_is_killed_with_its_children_and_the_next_one_runs(tmp_path, hooks):
    add(hooks, "10-hangs", f"sleep 60 & echo $! > {tmp_path}/child; wait")
    add(hooks, "20-ignores", "trap '' TERM HUP INT; while :; do sleep 0.01; done")
    add(hooks, "30-works", "")
    began = monotonic()
    assert run(str(tmp_path), limit_s=1.0) == {
        "10-hangs": "timed out",
        "20-ignores": "timed out",
        "30-works": "exit status 0",
    }
    assert monotonic() - began < 20
    assert is_gone(int((tmp_path / "child").read_text()))


@pytest.mark.root
def test_all_of_them_together_have_a_limit_too(tmp_path, hooks):
    add(hooks, "10-hangs", "sleep 60")
    add(hooks, "20-late", "")
    assert run(str(tmp_path), total_s=0.3) == {"10-hangs": "timed out", "20-late": "skipped"}


@pytest.mark.root
def test_without_a_log_they_run_all_the_same(tmp_path, hooks):
    add(hooks, "10-works", "echo hello")
    (tmp_path / "run").touch()
    assert run(str(tmp_path)) == {"10-works": "exit status 0"}


def test_without_a_tree_there_are_none():
    assert run("") == {}
