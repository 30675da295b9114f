"""The guest's cgroups: where processes of users run, what they may take, and how they are frozen.

Terminals are in `ptys`, hooks and what they leave behind in `hooks`, everything else in `user`;
envd stays outside, so that it can answer while they stand still, and when they have taken all the
memory that they may.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Name and cpu.weight: who types is served first.
GROUPS = (("user", "50"), ("ptys", "200"), ("hooks", "200"))
# Of the guest's memory, so much is out of users' reach, but never more than an eighth.
RESERVED_BYTES = 128 << 20


class Groups:
    """Below the directory that `find` names; without one (empty) there are none.

    They are made when first needed: a guest that starts nothing pays nothing.
    """

    def __init__(self, find: Callable[[], str]) -> None:
        self._find = find
        self._root: str | None = None

    def procs(self, *, has_terminal: bool) -> str:
        """The file that a process writes 0 to, to be in its group; empty without groups."""
        root = self._prepared()
        return f"{root}/{'ptys' if has_terminal else 'user'}/cgroup.procs" if root else ""

    def hooks(self) -> str:
        """The same for hooks, whose group is thawed before all others. Errors: OSError."""
        root = self._prepared()
        if not root:
            return ""
        write(f"{root}/hooks/cgroup.freeze", "0")
        return f"{root}/hooks/cgroup.procs"

    def paths(self) -> list[str]:
        root = self._prepared()
        return [f"{root}/{name}" for name, _ in GROUPS] if root else []

    def set_frozen(self, *, frozen: bool) -> None:
        """Ask the kernel; when it is done is in `cgroup.events`. Errors: OSError."""
        for path in self.paths():
            write(f"{path}/cgroup.freeze", "1" if frozen else "0")

    def _prepared(self) -> str:
        if self._root is None:
            root = self._find()
            try:
                if root:
                    prepare(root)
                self._root = root
            except OSError as error:
                sys.stderr.write(f"envd: there will be no cgroups: {error}\n")
                self._root = ""
        return self._root


def prepare(root: str) -> None:
    """Errors: OSError when the groups can't be made; limits are set as far as there are any."""
    for controller in ("cpu", "memory"):
        write_if_possible(f"{root}/cgroup.subtree_control", f"+{controller}")
    limit = str(memory_limit(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    for name, weight in GROUPS:
        path = f"{root}/{name}"
        if not os.path.isdir(path):
            os.mkdir(path)
        write_if_possible(f"{path}/cpu.weight", weight)
        write_if_possible(f"{path}/memory.max", limit)
        # An envd that died while they were frozen can't thaw them any more.
        write(f"{path}/cgroup.freeze", "0")


def memory_limit(total_bytes: int) -> int:
    return total_bytes - min(total_bytes // 8, RESERVED_BYTES)


def write(path: str, text: str) -> None:
    """Errors: OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def write_if_possible(path: str, text: str) -> None:
    """What depends on a controller that this kernel may not have."""
    try:
        write(path, text)
    except OSError:
        pass
