import os

from wrennd.vmm import package


def make(tmp_path, *, file_mode, directory_mode):
    root = tmp_path / "wrennd"
    for part in ("core", "linux", "qemu_vmm", "qemu_vmm/__pycache__", "host"):
        (root / part).mkdir(parents=True)
    for name in ("__init__.py", "core/__init__.py", "qemu_vmm/x.py", "qemu_vmm/__pycache__/x.pyc"):
        (root / name).write_text(name)
        (root / name).chmod(file_mode)
    for path in root.rglob("*"):
        if path.is_dir():
            path.chmod(directory_mode)
    return root


def test_what_anyone_can_read_is_used_as_it_is(tmp_path):
    root = make(tmp_path, file_mode=0o644, directory_mode=0o755)
    assert package.readable(root, tmp_path / "copies") == root
    assert not (tmp_path / "copies").exists()


def test_what_only_its_owner_can_read_is_copied_once(tmp_path):
    root = make(tmp_path, file_mode=0o600, directory_mode=0o700)
    old = os.umask(0o077)
    try:
        copy = package.readable(root, tmp_path / "copies")
    finally:
        os.umask(old)
    assert copy.parent == tmp_path / "copies"
    assert package.readable(root, tmp_path / "copies") == copy
    found = {str(p.relative_to(copy)): p.stat().st_mode & 0o777 for p in copy.rglob("*")}
    assert found == {
        **{name: 0o755 for name in ("core", "linux", "qemu_vmm")},
        **{name: 0o644 for name in ("__init__.py", "core/__init__.py", "qemu_vmm/x.py")},
    }
    assert copy.stat().st_mode & 0o777 == 0o755
    assert [p.name for p in (tmp_path / "copies").iterdir()] == [copy.name]


def test_a_changed_file_makes_another_copy(tmp_path):
    root = make(tmp_path, file_mode=0o600, directory_mode=0o700)
    first = package.readable(root, tmp_path / "copies")
    (root / "qemu_vmm/x.py").write_text("something longer than before")
    assert package.readable(root, tmp_path / "copies") != first
