"""What `--help` looks like: usage lines as one types them, defaults and ranges in words, commands
in groups. It owns no text; that is each command's.

The contexts and formatters here are Typer's own, of classes that it does not publish: hence `Any`.
"""

import re
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

# The groups of commands, in their order; those of no group come first.
SANDBOXES = "Sandboxes"
SOURCES = "What they are made from"
SERVER = "The server"
MACHINE = "This machine"
PANELS = ("Commands", SANDBOXES, SOURCES, SERVER, MACHINE)

# What Typer puts behind an option's text: "  [default: 1; 1<=x<=64]".
_FACTS = re.compile(r"(^|  )\[([^\[\]]*)\]$")
_RANGE = re.compile(r"(?:([\d.]+)<=)?x(?:(<=|>=)([\d.]+))?")


class Command(TyperCommand):
    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *map(_typed, _arguments(self, ctx))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments = [(_name(each), each.help) for each in _arguments(self, ctx) if each.help]
        _section(formatter, "Arguments", arguments)
        _section(formatter, "Options", _options(self, ctx))


class Group(TyperGroup):
    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Commands first: whoever asks has none yet."""
        groups: dict[str, list[tuple[str, str]]] = {panel: [] for panel in PANELS}
        for name, command in self.commands.items():
            panel = getattr(command, "rich_help_panel", None) or PANELS[0]
            groups[panel].append((name, command.get_short_help_str(200)))
        width = max(len(name) for name in self.commands)
        for title, rows in groups.items():
            _section(formatter, title, [(name.ljust(width), text) for name, text in rows])
        _section(formatter, "Options", _options(self, ctx))


def _section(formatter: Any, title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)


def _arguments(command: TyperCommand, ctx: Any) -> list[Any]:
    return [each for each in command.get_params(ctx) if each.param_type_name == "argument"]


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _typed(argument: Any) -> str:
    return _name(argument) if argument.required else f"[{_name(argument)}]"


def _options(command: TyperCommand | TyperGroup, ctx: Any) -> list[tuple[str, str]]:
    params: Iterable[Any] = command.get_params(ctx)
    records = [each.get_help_record(ctx) for each in params if each.param_type_name == "option"]
    return [(name, in_words(text)) for name, text in filter(None, records)]


def in_words(text: str) -> str:
    """An option's text, its default and range as one would say them."""
    found = _FACTS.search(text)
    if found is None:
        return text
    facts = [_fact(each) for each in found[2].split("; ")]
    return f"{text[: found.start()]}{found[1]}[{', '.join(facts)}]"


def _fact(text: str) -> str:
    label, colon, value = text.partition(": ")
    if colon:
        return f"{label}: {value.removeprefix('(').removesuffix(')').removesuffix('.0')}"
    found = _RANGE.fullmatch(text)
    if found is None:
        return text
    least, sign, bound = (part and part.removesuffix(".0") for part in found.groups())
    if sign == ">=":
        return f"{bound} or more"
    return f"{least} to {bound}"


# How Typer's own words are said here. It checks values by pydantic, which speaks of inputs.
_REWORDED = (
    (re.compile(r"Input should be a valid integer, unable to parse .*"), "give a whole number"),
    (re.compile(r"Input should be a valid number, unable to parse .*"), "give a number"),
    (re.compile(r"Input should be greater than or equal to (\S+)"), r"it is \1 at least"),
    (re.compile(r"Input should be less than or equal to (\S+)"), r"it is \1 at most"),
    (re.compile(r"^Invalid value for '(.*?)': "), r"\1: "),
    (re.compile(r"^Missing argument '(?:-- )?(.*)'"), r"\1 is missing"),
    (re.compile(r"^Got unexpected extra arguments?(?:\(s\))? \((.*)\)"), r"unexpected: \1"),
    (re.compile(r"^No such (command|option)"), r"no such \1"),
    (re.compile(r"\.$"), ""),
)


def sentence(text: str) -> str:
    """What Typer says of wrong usage, as every other error of ours reads."""
    for pattern, replacement in _REWORDED:
        text = pattern.sub(replacement, text)
    return text
