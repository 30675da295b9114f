"""`wrenn setup`: kernel, images, and a Firecracker binary."""

from pathlib import Path
from typing import Annotated

import typer

from wrennd.cli import standalone
from wrennd.cli.options import DataDir, configured
from wrennd.cli.progress import Progress

HELP = "Build kernel and images, or take a Firecracker."


def setup(
    force: Annotated[
        bool, typer.Option("--force", help="Build again what is there already.")
    ] = False,
    firecracker: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Take this Firecracker release binary, and check it."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    config = configured(data_dir)
    if firecracker is not None:
        standalone.take_firecracker(config, firecracker, Progress())
    else:
        standalone.setup(config, force=force, report=Progress())
