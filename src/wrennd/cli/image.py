"""`wrenn image`: the base images that are here."""

import json
import sys

import typer
from rich.console import Console
from rich.table import Table

from wrennd.cli import standalone
from wrennd.cli.options import DataDir, Json, configured
from wrennd.core.sizes import format_bytes

HELP = "Show the base images."
app = typer.Typer(no_args_is_help=True)


@app.callback()
def image() -> None:
    """Show the base images."""


@app.command("ls")
def ls(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List images with their digests and the disk space they use."""
    found = standalone.images(configured(data_dir))
    if as_json:
        print(json.dumps({"images": found}))
        return
    if not found:
        print("there are no images yet; wrenn setup builds them", file=sys.stderr)
        return
    table = Table("NAME", "DIGEST", "DISK", "CREATED", box=None, pad_edge=False)
    for row in found:
        table.add_row(
            str(row["name"]),
            str(row["digest"])[:12],
            format_bytes(int(row["disk_bytes"])),
            str(row["created"]),
        )
    Console().print(table)
