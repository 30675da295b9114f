"""Which files are hooks."""

from wrennd.envd.hooks import find


def add(folder, name, mode=0o755):
    (folder / name).touch()
    (folder / name).chmod(mode)


def test_what_is_a_hook_and_in_which_order(tmp_path):
    for name in ("b", "a", "10-z", "9-y", "Z"):
        add(tmp_path, name)
    add(tmp_path, "plain", 0o644)
    add(tmp_path, ".hidden")
    add(tmp_path, "copy~")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert find(str(tmp_path)) == ["10-z", "9-y", "Z", "a", "b", "link"]
    assert find(str(tmp_path / "no")) == []
