"""`wrenn prune`: remove what nobody uses."""

import dataclasses
import json
import sys
from typing import Annotated

import typer

from wrennd.cli import place, standalone, tables
from wrennd.cli.options import DataDir, Json, configured
from wrennd.core.config import Config
from wrennd.core.errors import InvalidInput
from wrennd.core.sizes import format_bytes
from wrennd.core.space import Pruning

HELP = "Remove what nobody uses: images that were replaced, build caches, leftovers."
COLUMNS = ("WHAT", "KIND", "FREES", "WHY")


def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be removed.")
    ] = False,
    templates: Annotated[
        bool,
        typer.Option("--templates", help="Snapshot templates that no sandbox was made of, too."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Never sandboxes, nor images that have a name."""
    config = configured(data_dir)
    if not (dry_run or yes):
        if as_json or not sys.stdin.isatty():
            raise InvalidInput(
                "nobody can be asked here whether all that may go",
                hint="--dry-run shows what it is, --yes removes it",
            )
        _show(_pruned(config, is_dry_run=True, with_templates=templates), is_dry_run=True)
        typer.confirm("Remove all of that?", abort=True)
    done = _pruned(config, is_dry_run=dry_run, with_templates=templates)
    if as_json:
        print(json.dumps({"is_dry_run": dry_run, **dataclasses.asdict(done)}))
        return
    _show(done, is_dry_run=dry_run)


def _pruned(config: Config, *, is_dry_run: bool, with_templates: bool) -> Pruning:
    client = place.server(config)
    if client is not None:
        return client.prune(dry_run=is_dry_run, templates=with_templates)
    return standalone.prune(config, is_dry_run=is_dry_run, with_templates=with_templates)


def _show(done: Pruning, *, is_dry_run: bool) -> None:
    for note in done.notes:
        print(f"wrenn: {note}", file=sys.stderr)
    if not done.items:
        print("there is nothing to remove", file=sys.stderr)
        return
    rows = ((each.name, each.kind, format_bytes(each.own_bytes), each.why) for each in done.items)
    tables.show(COLUMNS, rows)
    word = "would be free then" if is_dry_run else "are free now"
    print(f"{format_bytes(done.freed_bytes)} {word}")
