"""`wrenn cp`: files and directories into a sandbox, or out of one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from wrennd.cli import place
from wrennd.cli import run_options as options
from wrennd.cli.options import DataDir, configured
from wrennd.core.errors import InvalidInput

HELP = "Copy a file or directory into a sandbox, or out of one."
EXAMPLES = """\
Examples:
  wrenn cp ./app ID:/home/user/app
  wrenn cp ID:/home/user/result.json ."""
USAGE = "one side is ID:PATH, as in wrenn cp ./app ID:/home/user/app"


@dataclass(frozen=True, kw_only=True)
class Place:
    """One side of a copy. sandbox empty: on this host."""

    sandbox: str
    path: str

    @classmethod
    def parse(cls, text: str) -> "Place":
        """As scp reads it: a colon before the first slash ends an id."""
        before, colon, path = text.partition(":")
        if not colon or "/" in before:
            return cls(sandbox="", path=text)
        if not path:
            raise InvalidInput(f"{text!r} names no path in the sandbox", hint=USAGE)
        return cls(sandbox=before, path=path)


def cp(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A path, or ID:PATH.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="A path, or ID:PATH.")],
    user: options.User = "user",
    data_dir: DataDir = None,
) -> None:
    """A directory that is there gets the source under its own name, as with cp -r."""
    here, there = Place.parse(source), Place.parse(destination)
    if bool(here.sandbox) == bool(there.sandbox):
        what = "both are in sandboxes" if here.sandbox else "neither is in a sandbox"
        raise InvalidInput(f"{source!r} and {destination!r}: {what}", hint=USAGE)
    if there.sandbox and not Path(here.path).exists():
        raise InvalidInput(f"{here.path!r} does not exist", hint=USAGE)
    with place.existing(configured(data_dir)).connect(here.sandbox or there.sandbox) as box:
        if there.sandbox:
            box.copy_in(Path(here.path), there.path, user=user)
        else:
            box.copy_out(here.path, Path(there.path), user=user)
