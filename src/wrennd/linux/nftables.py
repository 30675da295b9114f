"""nftables through `nft`: rule texts applied in one transaction, tables and chains listed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wrennd.linux import netns, process

_TIMEOUT_S = 120.0  # it waits for no one but the CPU, and for a long time on a starved host


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A chain; `hook` and `policy` are empty unless it is a base chain."""

    family: str
    table: str
    name: str
    hook: str
    policy: str


def _nft(*words: str, stdin: str | None = None, inside: Path | None = None) -> process.Completed:
    enter = netns.enter(inside) if inside is not None else []
    return process.run([*enter, "nft", *words], stdin=stdin, timeout_s=_TIMEOUT_S)


def apply(rules: str, *, inside: Path | None = None) -> None:
    """Load a rule text, all of it or nothing, here or in the namespace mounted on `inside`.

    Errors: CommandFailed with nft's message; FileNotFoundError when nft is not installed.
    """
    _nft("-f", "-", stdin=rules, inside=inside)


def check(rules: str) -> None:
    """Let the kernel judge a rule text without applying it. Errors as `apply`."""
    _nft("--check", "-f", "-", stdin=rules)


def delete_table(name: str, *, family: str = "inet") -> None:
    """Delete a table; nothing happens when there is none (it is made first: one transaction)."""
    apply(f"add table {family} {name}\ndelete table {family} {name}\n")


def _listed(kind: str, *words: str) -> list[dict[str, Any]]:
    said = json.loads(_nft("--json", "list", *words).stdout)
    return [entry[kind] for entry in said["nftables"] if kind in entry]


def tables() -> list[tuple[str, str]]:
    """(family, name) of every table."""
    return [(found["family"], found["name"]) for found in _listed("table", "tables")]


def chains() -> list[Chain]:
    return [
        Chain(
            family=found["family"],
            table=found["table"],
            name=found["name"],
            hook=found.get("hook", ""),
            policy=found.get("policy", ""),
        )
        for found in _listed("chain", "chains")
    ]


def set_elements(table: str, name: str, *, family: str = "inet") -> list[str]:
    """What is in a set of plain words. Errors: CommandFailed when there is no such set."""
    (found,) = _listed("set", "set", family, table, name)
    return [str(element) for element in found.get("elem", [])]
