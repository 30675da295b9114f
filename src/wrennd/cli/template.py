"""`wrenn template`: all that sandboxes are made from, on a server."""

import dataclasses
import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from wrennd.cli import place, tables, usage
from wrennd.cli.image import format_age
from wrennd.cli.options import DataDir, Json, configured
from wrennd.client.values import Template
from wrennd.core.sizes import format_bytes

HELP = "List and remove what sandboxes are made from (needs the server)."
COLUMNS = ("NAME", "KIND", "TIER", "VCPUS", "MEMORY", "SIZE", "AGE")
app = typer.Typer(cls=usage.Group, no_args_is_help=True)


@app.callback()
def template() -> None:
    """List and remove what sandboxes are made from (needs the server)."""


@app.command("ls", cls=usage.Command)
def ls(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List base images and snapshots."""
    found = place.required_server(configured(data_dir)).templates()
    if as_json:
        rows = [dataclasses.asdict(each) for each in found]
        print(json.dumps({"templates": rows}, default=str))
    elif found:
        tables.show(COLUMNS, (_row(each) for each in found))
    else:
        print("there are no templates yet: wrenn setup builds the first", file=sys.stderr)


@app.command("rm", cls=usage.Command)
def rm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A snapshot's name.")],
    data_dir: DataDir = None,
) -> None:
    """Remove a snapshot; sandboxes made of it go on."""
    place.required_server(configured(data_dir)).delete_template(name)


def _row(found: Template) -> tuple[str, ...]:
    if found.error:
        return found.name, found.error
    now = datetime.now(UTC)
    return (
        found.name,
        found.kind,
        found.tier,
        str(found.vcpus or ""),
        f"{found.memory_mib} MiB" if found.memory_mib else "",
        format_bytes(found.size_bytes),
        format_age(int((now - found.created_at).total_seconds())) if found.created_at else "",
    )
