"""Settings, error codes and commands stand in the docs."""

import re
from pathlib import Path

import pytest

import wrennd
from wrennd.client.blocking import Client
from wrennd.core.errors import Error

REPO = Path(__file__).resolve().parents[2]
OPERATIONS = (REPO / "docs/operations.md").read_text()
COMMANDS = (REPO / "docs/commands.md").read_text()
CLIENT = (REPO / "docs/client.md").read_text()
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


def top_command():
    import typer

    from wrennd.cli.commands import app_for

    return typer.main.get_command(app_for(()))


def commands():
    group = top_command()
    for name, command in group.commands.items():
        yield from (f"wrenn {name} {sub}" for sub in getattr(command, "commands", ()))
        if not hasattr(command, "commands"):
            yield f"wrenn {name}"


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_is_listed(command):
    assert f"`{command}" in COMMANDS


@pytest.mark.parametrize("page", sorted(set(re.findall(r"`(docs/[a-z-]+\.md)`", README))))
def test_every_page_that_is_named_exists(page):
    assert (REPO / page).is_file()


def told_commands():
    """Page and words of every `wrenn ...` that is told to be typed; code is set off by back ticks,
    or begins a line."""
    for path in (REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))):
        for words in re.findall(r"(?:`|^\s*)wrenn ([a-z-][^`#;\n]*)", path.read_text(), re.M):
            yield path.name, words


def unknown_words(text):
    """Of a command line: commands and options that there are not."""
    words = text.split(" -- ")[0].split()
    command, known = top_command(), {"--help", "--install-completion", "--version"}
    while words and hasattr(command, "commands"):
        word, *words = words
        if word.startswith("-"):
            return [] if word in known else [word]
        found = [command.commands.get(name) for name in word.rstrip(",").split("|")]
        if None in found:
            return [word]
        command = found[0]
    known |= {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    told = {word for each in words for word in re.findall(r"^\[?(--?[a-z][a-z-]*)", each)}
    return sorted(told - known)


def test_what_is_told_to_be_typed_exists():
    found = [
        (page, text, wrong) for page, text in told_commands() if (wrong := unknown_words(text))
    ]
    assert found == []


@pytest.mark.parametrize("text", ["nosuch ID", "snapshot nosuch", "ls --nosuch", "--nosuch"])
def test_what_does_not_exist_is_seen(text):
    assert unknown_words(text)


@pytest.mark.parametrize("name", sorted(n for n in vars(Client) if not n.startswith("_")))
def test_every_method_of_the_client_is_listed(name):
    assert f"`{name}`" in CLIENT or name in ("close", "follow", "send")
