"""`wrenn setup`: kernel, images, a Firecracker binary, and a filesystem for disks."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wrennd.cli import standalone
from wrennd.cli.options import DataDir, configured
from wrennd.cli.progress import Progress
from wrennd.core.errors import InvalidInput


class Storage(StrEnum):
    """What can be made. device-mapper needs nothing made, and copies nothing at all."""

    REFLINK = "reflink"


HELP = "Build kernel and images, or take a Firecracker."


def setup(
    force: Annotated[
        bool, typer.Option("--force", help="Build again what is there already.")
    ] = False,
    firecracker: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Take this Firecracker release binary, and check it."),
    ] = None,
    storage: Annotated[
        Storage | None,
        typer.Option(help="Make a filesystem that disks can be cloned in, where there is none."),
    ] = None,
    storage_size: Annotated[
        int | None,
        typer.Option(metavar="GIB", min=1, help="How large.", show_default="most of what is free"),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    if storage_size is not None and storage is None:
        raise InvalidInput("--storage-size says how large --storage makes its filesystem")
    wanted = {
        "--force": force,
        "--firecracker": firecracker is not None,
        "--storage": storage is not None,
    }
    given = [name for name, is_given in wanted.items() if is_given]
    if len(given) > 1:
        raise InvalidInput(f"{' and '.join(given)} are separate steps", hint="give one at a time")
    config = configured(data_dir)
    if storage is not None:
        standalone.make_volume(config, storage_size, Progress())
    elif firecracker is not None:
        standalone.take_firecracker(config, firecracker, Progress())
    else:
        standalone.setup(config, force=force, report=Progress())
