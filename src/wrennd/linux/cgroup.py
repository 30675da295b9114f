"""cgroup2 as it is found in mountinfo: make, limit, kill, remove. cgroup v1 is not supported.

Owns nothing: a `Cgroup` is a path. Where no cgroup2 is mounted there is no `Hierarchy`, and where
a controller is missing `Hierarchy.lacks` names it; both are for the caller to report.
"""

import contextlib
import errno
import time
from dataclasses import dataclass
from pathlib import Path

from wrennd.core.deadline import Deadline
from wrennd.linux import mountinfo

WANTED = ("cpu", "memory", "pids")


@dataclass(frozen=True)
class Cgroup:
    """One directory below a cgroup2 mount."""

    path: Path

    @property
    def procs(self) -> Path:
        return self.path / "cgroup.procs"

    def pids(self) -> list[int]:
        try:
            return [int(line) for line in self.procs.read_text().split()]
        except FileNotFoundError:
            return []

    def limit(self, name: str, value: str) -> bool:
        """Write a limit such as `memory.max`; False when its controller is not here."""
        file = self.path / name
        if not file.exists():
            return False
        file.write_text(value)
        return True

    def kill(self) -> None:
        """SIGKILL everything inside (Linux 5.14, cgroup.kill)."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / "cgroup.kill").write_text("1")

    def remove(self, deadline: Deadline) -> None:
        """Kill what is inside and remove the directory; nothing happens when it is gone.

        The kernel keeps a cgroup busy for a moment after its last process was reaped, and offers
        nothing to wait on but `populated`, hence the short polling. Errors: OSError (EBUSY).
        """
        while True:
            self.kill()
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.EBUSY or deadline.is_over:
                    raise
                time.sleep(0.002)
            else:
                return


@dataclass(frozen=True)
class Hierarchy:
    """A cgroup2 mount."""

    mount: Path

    @classmethod
    def find(cls) -> "Hierarchy | None":
        for mount in mountinfo.mounts():
            if mount.kind == "cgroup2" and mount.root == "/":
                return cls(mount.target)
        return None

    @property
    def lacks(self) -> tuple[str, ...]:
        """Controllers that we want to limit by and that this kernel does not offer here."""
        offered = (self.mount / "cgroup.controllers").read_text().split()
        return tuple(name for name in WANTED if name not in offered)

    def group(self, *parts: str) -> Cgroup:
        return Cgroup(self.mount.joinpath(*parts))

    def make(self, parent: str, name: str) -> Cgroup:
        """Make `parent/name`, with every wanted controller that there is enabled for it."""
        above = self.mount / parent
        above.mkdir(exist_ok=True)
        for directory in (self.mount, above):
            offered = (directory / "cgroup.controllers").read_text().split()
            for controller in WANTED:
                if controller in offered:
                    # EBUSY, EOPNOTSUPP (a container's root): `limit` then says that it can't.
                    with contextlib.suppress(OSError):
                        (directory / "cgroup.subtree_control").write_text(f"+{controller}")
        made = Cgroup(above / name)
        made.path.mkdir()
        return made
