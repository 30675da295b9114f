"""`wrenn version`, and `wrenn --version`."""

from typing import Annotated

import typer

from wrennd import __version__

HELP = "Print the version."


def version() -> None:
    print(f"wrenn {__version__}")


def _shown(is_asked: bool) -> None:
    if is_asked:
        version()
        raise typer.Exit


def root(
    is_version_asked: Annotated[
        bool, typer.Option("--version", help=HELP, callback=_shown, is_eager=True)
    ] = False,
) -> None:
    """What all commands have in common: the option acts by itself."""
