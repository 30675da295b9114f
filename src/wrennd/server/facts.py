"""What a running server tells the other commands of this machine: one small file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from wrennd.linux import files, process
from wrennd.server.settings import RunFiles
from wrennd.storage.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A server that runs: its supervisor's pid and start time, where it listens, and the file that
    holds a key of its."""

    pid: int
    start_time: int
    url: str
    key_file: str

    def write(self, path: Path) -> None:
        files.write_atomic(path, json.dumps(asdict(self)).encode())


def running(data_dir: Path) -> Facts | None:
    """The server of a data directory, if one runs. Nothing is made."""
    try:
        layout = Layout.find(data_dir)
    except PermissionError:  # not ours to look at
        return None
    return None if layout is None else read(RunFiles.of(layout).facts)


def read(path: Path) -> Facts | None:
    """None when there is no such file, it says nothing to us, or its server has ended."""
    try:
        found = Facts(**json.loads(path.read_bytes()))
    except (FileNotFoundError, PermissionError, ValueError, TypeError):
        return None
    return found if process.is_alive(found.pid, found.start_time) else None
