"""`wrenn image`: the base images that are here; more of them, and fewer."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from wrennd.cli import standalone, tables, usage
from wrennd.cli.options import DataDir, Json, configured
from wrennd.cli.progress import Progress
from wrennd.core.sizes import format_bytes

HELP = "Show, build, import and remove base images."
app = typer.Typer(cls=usage.Group, no_args_is_help=True)
DEFAULT_DISK_MIB = 4096
_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


@app.callback()
def image() -> None:
    """Show, build, import and remove base images."""


@app.command("ls", cls=usage.Command)
def ls(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List images: size of their disk, what they take on ours, age, and what they are made of."""
    now = datetime.now(UTC)
    found = [{**row, "age_s": age_s(row["created"], now)} for row in _images(data_dir)]
    if as_json:
        print(json.dumps({"images": found}))
        return
    if not found:
        print("there are no images yet; wrenn setup builds them", file=sys.stderr)
        return
    columns = ("NAME", "DIGEST", "DISK", "TAKES", "AGE", "FROM")
    tables.show(
        columns,
        (
            (
                row["name"],
                row["digest"][:12],
                format_bytes(row["size_bytes"]),
                format_bytes(row["disk_bytes"]),
                format_age(row["age_s"]),
                "import" if "imported" in row["facts"] else "recipe",
            )
            for row in found
        ),
    )


@app.command("build", cls=usage.Command)
def build(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML file.")],
    name: Annotated[
        str,
        typer.Option(metavar="NAME", help="The image's name.", show_default="the file's"),
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Install its packages anew, not from the cache.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Build the image of a recipe, such as images/base.toml."""
    standalone.build_image(
        configured(data_dir), recipe, name or recipe.stem, force=force, report=Progress()
    )


@app.command("import", cls=usage.Command)
def import_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The image's name.")],
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A directory, or a tar (plain, gzip, bzip2, xz).")
    ],
    disk: Annotated[
        int, typer.Option("--disk", metavar="MIB", help="Size of its disk in MiB.")
    ] = DEFAULT_DISK_MIB,
    data_dir: DataDir = None,
) -> None:
    """Make an image of a root filesystem, such as `docker export` writes."""
    standalone.import_image(configured(data_dir), name, path, disk, Progress())


@app.command("rm", cls=usage.Command)
def rm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The image's name.")],
    data_dir: DataDir = None,
) -> None:
    """Remove an image; sandboxes made of it go on."""
    standalone.remove_image(configured(data_dir), name, Progress())


def _images(data_dir: Path | None) -> list[dict[str, Any]]:
    return standalone.images(configured(data_dir))


def age_s(created: str, now: datetime) -> int:
    """Whole seconds since an ISO 8601 time; 0 where the clock was set back since."""
    return max(0, int((now - datetime.fromisoformat(created)).total_seconds()))


def format_age(seconds: int) -> str:
    """In the largest unit that it fills: 2 d, 5 h, 7 min, 30 s."""
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
