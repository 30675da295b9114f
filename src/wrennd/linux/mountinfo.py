"""/proc/self/mountinfo, parsed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One mounted filesystem. `root` is the part of it that is visible at `target`."""

    root: str
    target: Path
    kind: str
    source: str


def parse(text: str) -> Iterator[Mount]:
    """See proc_pid_mountinfo(5); blanks in paths are octal escapes there."""
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        fields, rest = head.split(), tail.split()
        yield Mount(
            root=_unescape(fields[3]),
            target=Path(_unescape(fields[4])),
            kind=rest[0],
            source=_unescape(rest[1]),
        )


def mounts() -> list[Mount]:
    return list(parse(Path("/proc/self/mountinfo").read_text(errors="surrogateescape")))


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
