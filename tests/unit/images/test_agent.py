import pytest

from wrennd.images import agent


def package(tmp_path, **files):
    for name, text in files.items():
        path = tmp_path / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "__init__.py").write_text("")
    return tmp_path


def test_the_agent_comes_with_what_it_imports_of_us_and_nothing_else(tmp_path):
    root = package(
        tmp_path,
        envd__main="from wrennd.core.ids import check\nimport os\nimport wrennd.core.sizes as s\n",
        core__ids="from wrennd.core import errors\n",
        core__errors="import json\n",
        core__sizes="",
        core__unused="",
    )
    (root / "core/__init__.py").write_text("")
    assert agent.modules(root) == [
        "__init__.py",
        "core/__init__.py",
        "core/errors.py",
        "core/ids.py",
        "core/sizes.py",
        "envd/main.py",
    ]


def test_imports_that_loop_end(tmp_path):
    root = package(tmp_path, envd__a="import wrennd.envd.b", envd__b="import wrennd.envd.a")
    assert agent.modules(root) == ["__init__.py", "envd/a.py", "envd/b.py"]


def test_no_agent_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no guest agent"):
        agent.modules(package(tmp_path))
