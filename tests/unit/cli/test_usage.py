"""`--help` of every command, as a person reads it in a terminal of 80 columns."""

import re
import subprocess

import pytest
from typer import TyperException
from typer.main import get_command

from wrenn_command import WRENN
from wrennd.cli.commands import app_for
from wrennd.cli.usage import in_words, sentence


def all_commands(group=None, path=()):
    group = group or get_command(app_for(()))
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from all_commands(command, (*path, name))


COMMANDS = list(all_commands())
IDS = [" ".join(("wrenn", *path)) for path, _ in COMMANDS]


def help_of(path, command):
    context = command.make_context(" ".join(("wrenn", *path)), [], resilient_parsing=True)
    return command.get_help(context)


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=IDS)
def test_it_is_in_words_and_whole(path, command):
    text = help_of(path, command)
    assert text.startswith(f"Usage: {' '.join(('wrenn', *path))}")
    below = text.split("\n", 1)[1]
    assert not re.search(r"[{}]|<(str|int|path|list)|x<=|<=x|\.\.\.$", below, re.M), text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=IDS)
def test_everything_has_a_text(path, command):
    for param in command.params:
        assert param.help or param.name == "command", f"{path} {param.name}"
    assert command.help


@pytest.mark.parametrize(
    ("path", "usage"),
    [
        (("run",), "wrenn run [OPTIONS] -- CMD..."),
        (("exec",), "wrenn exec [OPTIONS] ID -- CMD..."),
        (("forward",), "wrenn forward [OPTIONS] ID PORT [LOCAL]"),
        (("kill",), "wrenn kill [OPTIONS] ID..."),
        (("snapshot", "create"), "wrenn snapshot create [OPTIONS] ID NAME"),
    ],
)
def test_usage_is_what_one_types(path, usage):
    found = dict(COMMANDS)[path]
    assert help_of(path, found).splitlines()[0] == f"Usage: {usage}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Memory.  [default: (512)]", "Memory.  [default: 512]"),
        ("How many.  [default: 1; 1<=x<=64]", "How many.  [default: 1, 1 to 64]"),
        ("How often.  [default: 2.0; x>=0.5]", "How often.  [default: 2, 0.5 or more]"),
        ("[0<=x<=65535]", "[0 to 65535]"),
        ("Nothing more.", "Nothing more."),
    ],
)
def test_defaults_and_ranges_are_in_words(text, expected):
    assert in_words(text) == expected


@pytest.mark.parametrize("words", [["--version"], ["version"]])
def test_the_version_is_told_either_way(words):
    done = subprocess.run(
        [WRENN, *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith("wrenn ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "no such command 'nope'"),
        (["craete"], "no such command 'craete'. Did you mean 'create'"),
        (["ls", "more"], "unexpected: more"),
        (["run"], "CMD... is missing"),
        (["exec"], "ID is missing"),
        (["run", "--nope", "--", "ls"], "no such option: --nope"),
        (["run", "--memory", "x", "--", "ls"], "--memory: give a whole number"),
        (["run", "--timeout", "x", "--", "ls"], "--timeout: give a number"),
        (["create", "--count", "0"], "--count: it is 1 at least"),
        (["create", "--count", "65"], "--count: it is 64 at most"),
        (["forward", "abcd", "x"], "PORT: give a whole number"),
    ],
)
def test_wrong_usage_is_said_as_other_errors_are(words, said):
    with pytest.raises(TyperException) as caught:
        get_command(app_for(()))(words, standalone_mode=False)
    assert sentence(caught.value.format_message()).startswith(said)
