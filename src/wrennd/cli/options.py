"""Options that several commands share."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from wrennd.core import log
from wrennd.core.config import Config
from wrennd.core.errors import Error

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where images and sandboxes lie (WRENN_DATA_DIR; default /var/lib/wrenn).",
        show_default=False,
    ),
]


def _ids(incomplete: str) -> list[str]:
    """For a shell that completes: ids that begin so. Whatever is wrong is no help there."""
    from wrennd.cli import place

    try:
        found = place.listed(Config.from_environ())
    except Error:
        return []
    return [box.id for box in found if box.id.startswith(incomplete)]


SandboxId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Its id, or the beginning of it.",
        show_default=False,
        autocompletion=_ids,
    ),
]
SandboxIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...",
        help="Their ids, or beginnings.",
        show_default=False,
        autocompletion=_ids,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def configured(data_dir: Path | None, *, log_level: str = "warning") -> Config:
    """Settings from the environment, overridden by flags; sets up logging."""
    config = Config.from_environ(log_level=log_level)
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=data_dir.absolute())
    log.configure(level=config.log_level, form="json" if config.log_form == "json" else "console")
    return config
