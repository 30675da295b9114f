"""Settings, error codes and commands stand in the docs."""

import re
from pathlib import Path

import pytest

import wrennd
from wrennd.core.errors import Error

REPO = Path(__file__).resolve().parents[2]
OPERATIONS = (REPO / "docs/operations.md").read_text()
README = (REPO / "README.md").read_text()
CONFIG = (Path(wrennd.__path__[0]) / "core/config.py").read_text()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"WRENN_[A-Z_]+", CONFIG))))
def test_every_setting_is_documented(name):
    assert f"`{name}`" in OPERATIONS


@pytest.mark.parametrize("code", sorted(Error.by_code))
def test_every_error_code_is_documented(code):
    assert f"`{code}`" in OPERATIONS


@pytest.mark.parametrize("code", sorted(set(re.findall(r"^\| `([a-z_]+)`", OPERATIONS, re.M))))
def test_no_error_code_is_documented_that_does_not_exist(code):
    assert code in Error.by_code or code == "internal"


def commands():
    import typer

    from wrennd.cli.commands import app

    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        yield from (f"wrenn {name} {sub}" for sub in getattr(command, "commands", ()))
        if not hasattr(command, "commands"):
            yield f"wrenn {name}"


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_is_in_the_readme(command):
    assert f"`{command}" in README


@pytest.mark.parametrize("page", sorted(set(re.findall(r"`(docs/[a-z-]+\.md)`", README))))
def test_every_page_that_is_named_exists(page):
    assert (REPO / page).is_file()
