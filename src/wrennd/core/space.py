"""What takes disk on a host, and what of it may go: values that host, API and commands share."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One thing that takes disk.

    kind: `image`, `warm` (one frozen), `kernel`, `template`, `sandbox`, `disk` or `generation` (of
    a sandbox), `cache`, `leftover`. of: the sandbox that it is a part of, else empty. own_bytes:
    what would be free if it went; total_bytes: that, and what it shares with others. note: what
    else is to be said.
    """

    kind: str
    name: str
    of: str = ""
    total_bytes: int = 0
    own_bytes: int = 0
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Space:
    """All that takes disk in a data directory. total_bytes: of all of it, what is shared once."""

    holdings: tuple[Holding, ...]
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """One thing that goes, or went. why: a clause. own_bytes: as a Holding's."""

    kind: str
    name: str
    why: str
    own_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What a prune removes, or would. freed_bytes: all together, what they share with each other
    too. notes: what was left alone, and why; sentences."""

    items: tuple[Pruned, ...]
    freed_bytes: int
    notes: tuple[str, ...] = ()
