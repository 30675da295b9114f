"""`wrenn logs`: what a guest's kernel and init wrote on its console."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from wrennd.cli import place, standalone
from wrennd.cli.options import DataDir, SandboxId, configured
from wrennd.core.errors import NotFound, WrongState

if TYPE_CHECKING:
    from collections.abc import Callable

    from wrennd.core.config import Config

HELP = "Show a sandbox's console."
EMPTY = "nothing was written on this console since the sandbox booted, or was resumed"
LOOK_S = 0.2  # a file on a tmpfs that another process writes: inotify would say no more


class Piece(NamedTuple):
    """What came; where the next piece begins; which console it is, another after a resume."""

    content: bytes
    next: int
    console: str


def logs(
    sandbox_id: SandboxId,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the sandbox ends.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """By the server, or on the sandbox's own host. It is shown printable, line by line."""
    show(_reader(configured(data_dir), sandbox_id), goes_on=follow)


def show(read: Callable[[int], Piece], *, goes_on: bool) -> None:
    """To stdout. `read` is asked by offset; NotFound and WrongState of it are an end, but at first.

    Why there may be nothing is told: a resume begins a console anew, and few write on it later.
    """
    first = piece = read(0)
    if not first.content:
        print(EMPTY, file=sys.stderr)
    while piece.console == first.console:
        sys.stdout.write(_printable(piece.content))
        sys.stdout.flush()
        if not piece.content:
            if not goes_on:
                return
            time.sleep(LOOK_S)
        try:
            piece = read(piece.next)
        except (NotFound, WrongState):
            return  # it ended meanwhile


def _reader(config: Config, sandbox_id: str) -> Callable[[int], Piece]:
    """What reads from an offset. Errors of it: NotFound, WrongState when there is no console."""
    if place.server(config) is None:

        def here(offset: int) -> Piece:
            content, console = standalone.console(config, sandbox_id, offset)
            return Piece(content, offset + len(content), str(console))

        return here
    sandboxes = place.required_sandboxes(config)
    found = sandboxes.match(sandbox_id)

    def there(offset: int) -> Piece:
        piece = sandboxes.client.logs(found, offset=offset)
        return Piece(piece.data, piece.next, piece.console)

    return there


def _printable(data: bytes) -> str:
    """A guest must not drive our terminal."""
    text = data.decode(errors="replace").replace("\r", "")
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
