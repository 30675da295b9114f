"""`wrenn ls`: the sandboxes that are there."""

import dataclasses
import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from wrennd.cli import place, tables
from wrennd.cli.image import age_s, format_age
from wrennd.cli.options import DataDir, Json, configured
from wrennd.core.sandboxes import Listed
from wrennd.core.states import State

HELP = "List sandboxes."
COLUMNS = ("ID", "TEMPLATE", "STATE", "TIER", "VCPUS", "MEMORY", "AGE", "ADDRESS")


def ls(
    show_all: Annotated[bool, typer.Option("--all", help="Those in error, too.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    found = place.listed(configured(data_dir))
    shown = [row for row in found if show_all or row.state is not State.ERROR]
    if as_json:
        now = datetime.now(UTC)
        rows = [{**dataclasses.asdict(row), "age_s": _age_s(row, now)} for row in shown]
        print(json.dumps({"sandboxes": rows}))
        return
    if shown:
        _print(shown)
    if len(shown) < len(found):
        print(f"{len(found) - len(shown)} in error: wrenn ls --all", file=sys.stderr)
    elif not found:
        print("there are no sandboxes", file=sys.stderr)


def _print(found: list[Listed]) -> None:
    now = datetime.now(UTC)
    tables.show(
        COLUMNS,
        (
            (
                row.id,
                row.template,
                row.state,
                row.tier,
                str(row.vcpus),
                f"{row.mem_mib} MiB",
                format_age(_age_s(row, now)),
                row.address or row.error,
            )
            for row in found
        ),
    )


def _age_s(row: Listed, now: datetime) -> int:
    return age_s(row.created, now) if row.created else 0
