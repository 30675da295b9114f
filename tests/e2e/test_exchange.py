"""A sandbox that is paused here and goes on elsewhere: on a machine that has only a kernel."""

import json
import shutil

import pytest

from leaks import LeakCheck
from wrenn_command import wrenn
from wrennd.storage.layout import Layout

SMALL = ("--template", "busybox", "--memory", "128")


def told(data_dir, *args):
    done = wrenn(data_dir, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def elsewhere(layout, tmp_path_factory):
    """Another installation, as a setup without images would leave it."""
    made = Layout.prepare(tmp_path_factory.mktemp("elsewhere") / "data")
    kernel = layout.current_kernel.readlink()
    shutil.copytree(layout.kernels / kernel.name, made.kernels / kernel.name)
    made.current_kernel.symlink_to(kernel)
    return made


@pytest.fixture(scope="module")
def shared_world(layout, elsewhere):
    check = LeakCheck()
    check.watch(layout.installation, layout.sandboxes, layout.templates)
    check.watch(elsewhere.installation, elsewhere.sandboxes, elsewhere.templates)
    yield
    check.finish()


def test_memory_and_disk_go_on_elsewhere(layout, elsewhere, tmp_path, shared_world):
    box = told(layout.data_dir, "create", *SMALL)
    file = tmp_path / "box.wrenn"
    try:
        script = "echo memory > /dev/shm/m; echo disk > ~/d; sleep 1000 < /dev/null &"
        told(layout.data_dir, "exec", box, "--", "sh", "-c", script)
        refused = wrenn(layout.data_dir, "snapshot", "export", box, file)
        assert "has no snapshot" in refused.stderr
        told(layout.data_dir, "pause", box)
        told(layout.data_dir, "snapshot", "export", box, file)
    finally:
        told(layout.data_dir, "kill", box)
    assert file.stat().st_mode & 0o777 == 0o600
    there = elsewhere.data_dir
    cut = tmp_path / "cut"
    cut.write_bytes(file.read_bytes()[:-1])
    assert "cut short" in wrenn(there, "snapshot", "import", cut, "--name", "taken").stderr
    assert told(there, "snapshot", "import", file, "--name", "taken") == "taken"
    try:
        assert json.loads(told(there, "snapshot", "verify", "--json", "taken"))["ok"]
        made = told(there, "create", "--template", "taken")
        assert made != box
        script = "cat /dev/shm/m ~/d; ps | grep -c '[s]leep 1000'"
        found = told(there, "exec", made, "--", "sh", "-c", script)
        told(there, "kill", made)
    finally:
        told(there, "snapshot", "rm", "taken")
    assert found.split() == ["memory", "disk", "1"]
