"""`wrenn logs`: what a guest's kernel and init wrote on its console."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from wrennd.cli import standalone
from wrennd.cli.options import DataDir, SandboxId, configured

HELP = "Show a sandbox's console."
LOOK_S = 0.2  # a file on a tmpfs that another process writes: inotify would say no more
CHUNK_BYTES = 64 * 1024


def logs(
    sandbox_id: SandboxId,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the sandbox ends.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Only on the sandbox's own host. What the guest wrote is shown printable, line by line."""
    console = standalone.console(configured(data_dir), sandbox_id)
    with console.open("rb") as file:
        while True:
            while data := file.read(CHUNK_BYTES):
                sys.stdout.write(_printable(data))
            sys.stdout.flush()
            if not follow or not _is_there(console, file.fileno()):
                return
            time.sleep(LOOK_S)


def _printable(data: bytes) -> str:
    """A guest must not drive our terminal."""
    text = data.decode(errors="replace").replace("\r", "")
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def _is_there(path: Path, fd: int) -> bool:
    """Whether the file that we read is still the one of that name."""
    try:
        return path.stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False
