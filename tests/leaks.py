"""What a test left on the host: a snapshot before, a comparison after, differences by name.

Only what can be told to belong to the test counts, since others work on the same machine: own
descendants and descriptors; things that carry the id of a watched installation (`wrenn-<id>`,
`w<id>v<n>`); files, mounts, sockets, loop devices and processes that name a watched path. Without
any watched installation everything of any installation counts.

    def test_x(leak_check, tmp_path):
        leak_check.watch("abc123", tmp_path / "data")
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from whole_name import is_named
from wrennd.linux import links, mountinfo, netns, nftables
from wrennd.linux.rtnetlink import Rtnetlink

RUN_ROOT = Path("/run/wrenn")
# The kernel lets go of some things (links of a dead namespace, cgroups) a moment after their end.
PATIENCE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Whose things count. No installations: everybody's."""

    installations: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()
    run_root: Path = RUN_ROOT

    def names(self, text: str) -> bool:
        """Whether a name on the host (namespace, table, cgroup, device) is in scope."""
        if not self.installations:
            return text.startswith("wrenn-") and text != "wrenn-forwarding"
        return any(
            text == f"wrenn-{found}" or text.startswith(f"wrenn-{found}-")
            for found in self.installations
        )

    def links(self, text: str) -> bool:
        if not self.installations:
            return re.fullmatch(r"w[a-z0-9]{6}v[0-9a-f]+", text) is not None
        return any(text.startswith(f"w{found}v") for found in self.installations)

    def mentions(self, text: str) -> bool:
        """Whether a path, command line or source speaks of something in scope."""
        directories = [os.fspath(self.run_root / found) for found in self.installations]
        directories += [os.fspath(path) for path in self.paths]
        names = [f"wrenn-{found}" for found in self.installations]
        return any(name in text for name in names) or any(
            is_named(path, text) for path in directories
        )


@dataclass(frozen=True)
class Host:
    """Kind of thing to the names of those that are there."""

    things: dict[str, frozenset[str]]

    def since(self, before: "Host") -> list[str]:
        """What is here and was not before, a line each."""
        return [
            f"{kind}: {name}"
            for kind, names in self.things.items()
            for name in sorted(names - before.things[kind])
        ]


def snapshot(scope: Scope | None = None) -> Host:
    scope = scope or Scope()
    return Host({kind: frozenset(look(scope)) for kind, look in LOOKS.items()})


def assert_no_leaks(
    before: Host, scope: Scope | None = None, *, patience_s: float = PATIENCE_S
) -> None:
    """Fail, naming them, when things are there that were not before (after some patience)."""
    deadline = time.monotonic() + patience_s
    while left := snapshot(scope).since(before):
        if time.monotonic() > deadline:
            raise AssertionError("left behind:\n  " + "\n  ".join(left))
        time.sleep(0.02)


NOBODY = Scope(installations=("-none-",))  # only our own descendants count


@dataclass
class LeakCheck:
    """The check of one test: `watch` widens what counts, `finish` compares."""

    scope: Scope = field(default_factory=lambda: NOBODY)
    before: Host = field(init=False)

    def __post_init__(self) -> None:
        self.before = snapshot(self.scope)

    def watch(self, installation: str, *paths: Path, run_root: Path = RUN_ROOT) -> None:
        """Count what carries this installation's id, or names one of these paths, from now on."""
        self.scope = Scope(
            installations=(*self.scope.installations, installation),
            paths=(*self.scope.paths, *paths),
            run_root=run_root,
        )
        now = snapshot(self.scope)
        mine = {kind: self.before.things[kind] for kind in ("process", "descriptor")}
        # A sandbox that several tests share is a stranger's: its VMM is no descendant of ours.
        strangers = now.things["process"] - frozenset(_processes(NOBODY))
        mine["process"] |= strangers
        self.before = Host(now.things | mine)

    def finish(self) -> None:
        assert_no_leaks(self.before, self.scope)


@pytest.fixture
def leak_check() -> Iterator[LeakCheck]:
    """Ask for it first: it is then torn down, and looks, last."""
    check = LeakCheck()
    yield check
    check.finish()


def _descendants() -> set[int]:
    children: dict[int, list[int]] = {}
    for pid in _pids():
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parent = int(stat[stat.rindex(b")") + 2 :].split()[1])
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        for child in children.get(todo.pop(), []):
            found.add(child)
            todo.append(child)
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _processes(scope: Scope) -> Iterator[str]:
    """Descendants (zombies too: nobody reaped them), and strangers that speak of us."""
    ours = _descendants()
    named = {_inode(netns.NETNS_DIR / name) for name in netns.names() if scope.names(name)}
    for pid in _pids():
        if pid == os.getpid():
            continue
        try:
            words = _words(pid)
            inside = Path(f"/proc/{pid}/ns/net").stat().st_ino
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            if pid not in ours:
                continue  # it ended, or is another container's
            words, inside = "(zombie)", -1
        if pid in ours or scope.mentions(words) or inside in named:
            yield f"{pid} {words}"


def _words(pid: int) -> str:
    """Its command line; for a moment within exec there is none, as for a zombie ever after."""
    words = (
        Path(f"/proc/{pid}/cmdline")
        .read_bytes()
        .replace(b"\0", b" ")
        .decode(errors="replace")
        .strip()
    )
    if words:
        return words
    is_zombie = "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text(errors="replace")
    return (
        "(zombie)"
        if is_zombie
        else f"({Path(f'/proc/{pid}/comm').read_text(errors='replace').strip()})"
    )


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _namespaces(scope: Scope) -> Iterator[str]:
    return (name for name in netns.names() if scope.names(name))


def _links(scope: Scope) -> Iterator[str]:
    with Rtnetlink() as rt:
        found = links.links(rt)
    return (link.name for link in found if scope.links(link.name))


def _tables(scope: Scope) -> Iterator[str]:
    return (f"{family} {name}" for family, name in nftables.tables() if scope.names(name))


def _mounts(scope: Scope) -> Iterator[str]:
    return (
        f"{mount.target} ({mount.kind} {mount.source}{mount.root})"
        for mount in mountinfo.mounts()
        if scope.mentions(f"{mount.target} {mount.source} {mount.root}")
    )


def _loops(scope: Scope) -> Iterator[str]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = backing.read_text(errors="replace").strip()
        except (FileNotFoundError, OSError):
            continue  # it was detached while we looked
        if scope.mentions(file):
            yield f"{backing.parts[3]} ({file})"


def _dm(scope: Scope) -> Iterator[str]:
    for file in Path("/sys/block").glob("dm-*/dm/name"):
        if scope.names(name := file.read_text(errors="replace").strip()):
            yield name


def _cgroups(scope: Scope) -> Iterator[str]:
    for mount in mountinfo.mounts():
        if mount.kind == "cgroup2":
            for top in mount.target.glob("wrenn-*"):
                if scope.names(top.name):
                    yield os.fspath(top)
                    yield from (os.fspath(below) for below in top.glob("**/*/"))


def _sockets(scope: Scope) -> Iterator[str]:
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and scope.mentions(fields[7]):
            yield fields[7]


def _files(scope: Scope) -> Iterator[str]:
    """Directories of installations, sandboxes and templates, and leases."""
    for found in scope.installations:
        below = scope.run_root / found
        yield from (os.fspath(path) for path in (below, *below.rglob("*")) if path.exists())
    for path in scope.paths:  # sandboxes and templates of a data directory
        if path.name in ("sandboxes", "templates"):
            yield from (os.fspath(below) for below in path.glob("*/"))
    for lease in (scope.run_root / "slots").glob("*"):
        try:
            holder = json.loads(lease.read_text()).get("installation", "")
        except (FileNotFoundError, ValueError):
            holder = ""
        if not scope.installations or holder in scope.installations:
            yield f"{lease} held by {holder or 'nobody'}"


def _descriptors(_scope: Scope) -> Iterator[str]:
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only
        try:
            yield f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}"  # noqa: PTH115 - pipes are no paths
        except FileNotFoundError:
            continue  # the directory that is being read


LOOKS: dict[str, Callable[[Scope], Iterator[str]]] = {
    "process": _processes,
    "namespace": _namespaces,
    "link": _links,
    "table": _tables,
    "mount": _mounts,
    "loop device": _loops,
    "device-mapper device": _dm,
    "cgroup": _cgroups,
    "unix socket": _sockets,
    "file": _files,
    "descriptor": _descriptors,
}
