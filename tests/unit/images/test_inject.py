import stat

import pytest

from wrennd.images.inject import DIRECTORY, Payload, inject
from wrennd.images.runtime import Runtime


@pytest.fixture
def payload(tmp_path):
    runtime = tmp_path / "runtime"
    (runtime / "bin").mkdir(parents=True)
    for name in ("bin/python3", "ld.so", "VERSION"):
        (runtime / name).write_text("1.0\n")
    (tmp_path / "envd.pyz").write_text("agent")
    (tmp_path / "busybox").write_text("busybox")
    return Payload(
        runtime=Runtime.load(runtime), agent=tmp_path / "envd.pyz", busybox=tmp_path / "busybox"
    )


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_is_there_with_modes_that_no_umask_changes(payload, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    inject(payload, tree)
    ours = tree / DIRECTORY
    for name in ("init", "busybox", "python/ld.so", "python/bin/python3", ".", "python", "../.."):
        assert mode(ours / name) == 0o755, name
    for name in ("envd.pyz", "fstab", "python/VERSION"):
        assert mode(ours / name) == 0o644, name
    assert (ours / "init").read_text().startswith(f"#!/{DIRECTORY}/busybox sh\n")
    assert mode(tree / "tmp") == 0o1777
    assert {p.name for p in tree.iterdir()} == {"dev", "proc", "run", "sys", "tmp", "usr"}


def test_a_second_time_replaces_the_first(payload, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    inject(payload, tree)
    (tree / DIRECTORY / "stale").write_text("")
    payload.agent.write_text("newer agent")
    inject(payload, tree)
    assert not (tree / DIRECTORY / "stale").exists()
    assert (tree / DIRECTORY / "envd.pyz").read_text() == "newer agent"


def test_directories_of_the_tree_keep_their_modes(payload, tmp_path):
    tree = tmp_path / "tree"
    (tree / "tmp").mkdir(parents=True)
    (tree / "tmp").chmod(0o700)
    inject(payload, tree)
    assert mode(tree / "tmp") == 0o700
