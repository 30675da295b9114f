"""`wrenn backup` and `wrenn restore`: all of an installation in one file, and back."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from wrennd.cli import serving, standalone
from wrennd.cli.options import DataDir, configured
from wrennd.core.errors import InvalidInput
from wrennd.core.sizes import format_bytes

BACKUP_HELP = "Write images, templates, paused sandboxes and the database into one file."
RESTORE_HELP = "Make an installation of a backup, in an empty data directory."


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file; -: stdout.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    data_dir: DataDir = None,
) -> None:
    """The server may run. A sandbox that runs is kept as of its newest snapshot."""
    config = configured(data_dir)
    if str(file) == "-" and sys.stdout.isatty():
        raise InvalidInput("a backup is nothing for a terminal", hint="name a file")
    with standalone.backing_up(config) as staged:
        # After the sandboxes were gathered: what it knows of them is not older than they are.
        for note in serving.keep(config, staged.server):
            staged.note(note)
        made = standalone.write_backup(staged, file, overwrite=force)
    _tell(made.notes)
    print(
        f"{made.sandboxes} sandboxes, {made.templates} templates and {made.images} images are in "
        f"{file}, {format_bytes(made.written.bytes)}",
        file=sys.stderr,
    )


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup; -: stdin.")],
    data_dir: DataDir = None,
) -> None:
    """Its server, if there is one, must not be running anywhere else."""
    config = configured(data_dir)
    with standalone.restoring(config, file) as found:
        notes = serving.put_back(found.layout, found.server, is_again=found.is_again)
    _tell((*notes, "new sandboxes boot until wrenn setup has frozen the images"))
    print(
        f"{found.sandboxes} sandboxes are back in {config.data_dir}: wrenn ls --all, wrenn up",
        file=sys.stderr,
    )


def _tell(notes: tuple[str, ...] | list[str]) -> None:
    for note in notes:
        print(f"wrenn: {note}", file=sys.stderr)
