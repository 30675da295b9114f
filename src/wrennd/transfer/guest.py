"""What copying needs of a guest: to run a command in it, and to look at a path."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from wrennd.core.model import Command
from wrennd.core.sandboxes import Running

# Every image carries it: no image needs tar.
BUSYBOX = "/usr/lib/wrenn/busybox"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a path leads to: "file", "directory" or something else."""

    path: str
    kind: str
    mode: int

    @property
    def is_file(self) -> bool:
        return self.kind == "file"

    @property
    def is_directory(self) -> bool:
        return self.kind == "directory"


class Guest(Protocol):
    def start(self, command: Command) -> AbstractContextManager[Running]: ...

    def look(self, path: str, *, user: str) -> Found:
        """Errors: NotFound."""
