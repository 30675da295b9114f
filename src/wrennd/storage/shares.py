"""How much of the disk things take, and how much of that would be free if one of them went.

A thing is a number of files and directories with all below them. Things share blocks by hard links
(generations of memory, templates, bases of dm disks) and, on XFS and btrfs, by reflinks, of which
FIEMAP tells. What is shared counts in full for each that has it, and is nobody's own.
"""

import contextlib
import stat
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from wrennd.linux.fiemap import shared_extents_of
from wrennd.storage.usage import BLOCK_BYTES

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Weight:
    """Bytes of the disk. own: those that would be free if the thing went. total: these, and what
    it shares with others."""

    total_bytes: int
    own_bytes: int


@dataclass(eq=False)  # each is itself
class _Inode(Generic[K]):
    """A file or directory: what it takes, how many names it has, and how many of them are where."""

    blocks_bytes: int
    names: int
    path: Path
    is_file: bool
    seen: "Counter[K]" = field(default_factory=Counter)

    def owner(self) -> K | None:
        """The thing that has all its names; None when there is no one such."""
        if len(self.seen) != 1:
            return None
        ((found, count),) = self.seen.items()
        return found if not self.is_file or count >= self.names else None


def weigh(things: Mapping[K, Iterable[Path]]) -> dict[K, Weight]:
    """Of each thing. What is not there, or goes away meanwhile, counts nothing. Errors: OSError for
    what can't be read."""
    inodes: dict[tuple[int, int], _Inode[K]] = {}
    for thing, paths in things.items():
        _look(thing, paths, inodes)
    total: Counter[K] = Counter()
    own: Counter[K] = Counter()
    ranges: dict[int, list[tuple[int, int, _Inode[K]]]] = {}
    for (device, _), inode in inodes.items():
        extents = _extents(inode)
        shared = sum(end - start for start, end in extents)
        ranges.setdefault(device, []).extend((start, end, inode) for start, end in extents)
        _count(inode, max(0, inode.blocks_bytes - shared), total, own)
    for found in ranges.values():
        _sweep(found, total, own)
    return {thing: Weight(total_bytes=total[thing], own_bytes=own[thing]) for thing in things}


def _look(thing: K, paths: Iterable[Path], inodes: "dict[tuple[int, int], _Inode[K]]") -> None:
    """Symlinks count themselves and are not followed."""
    todo, seen = list(paths), set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = path.lstat()
            key = (found.st_dev, found.st_ino)
            if key not in inodes:
                inodes[key] = _Inode(
                    blocks_bytes=found.st_blocks * BLOCK_BYTES,
                    names=found.st_nlink,
                    path=path,
                    is_file=not stat.S_ISDIR(found.st_mode),
                )
            inodes[key].seen[thing] += 1
            if stat.S_ISDIR(found.st_mode):
                todo.extend(path.iterdir())


def _extents(inode: "_Inode[K]") -> list[tuple[int, int]]:
    """Of the device, those that other files have too."""
    try:
        if not inode.blocks_bytes or not stat.S_ISREG(inode.path.lstat().st_mode):
            return []
        return shared_extents_of(inode.path)
    except FileNotFoundError:
        return []


def _count(inode: "_Inode[K]", size: int, total: "Counter[K]", own: "Counter[K]") -> None:
    for thing in inode.seen:
        total[thing] += size
    owner = inode.owner()
    if owner is not None:
        own[owner] += size


def _sweep(
    ranges: "list[tuple[int, int, _Inode[K]]]", total: "Counter[K]", own: "Counter[K]"
) -> None:
    """Count what is shared piece by piece: once for each thing, and as a thing's own if nobody
    else has it. That a piece is had but once means that somebody has it whom we don't see."""
    for length, users in _pieces(ranges):
        things = {thing for inode in users for thing in inode.seen}
        for thing in things:
            total[thing] += length
        owners = {inode.owner() for inode in users}
        if len(owners) == 1 and users.total() > 1:
            owner = owners.pop()
            if owner is not None:
                own[owner] += length


def _pieces(
    ranges: "list[tuple[int, int, _Inode[K]]]",
) -> "Iterator[tuple[int, Counter[_Inode[K]]]]":
    """(length, the files that have it, each as often as it does) of all pieces of the device."""
    edges = [(start, 1, inode) for start, _, inode in ranges]
    edges += [(end, -1, inode) for _, end, inode in ranges]
    edges.sort(key=lambda edge: edge[0])
    users: Counter[_Inode[K]] = Counter()
    at = 0
    for position, by, inode in edges:
        if users and position > at:
            yield position - at, users
        at = position
        users[inode] += by
        if not users[inode]:
            del users[inode]
