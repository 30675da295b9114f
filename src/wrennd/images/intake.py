"""A root filesystem that somebody gives us becomes a disk image: nothing of it is trusted.

Whatever reads it is a child without rights: `unpack.py` makes the tree and puts our files into it,
`mke2fs` the disk, both inside a user namespace (`linux/userns.py`); so the tree never has a moment
in which a path in it is followed by a process that could do harm.
"""

import json
import os
import stat
import sys
import tarfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded, Error, HostUnsuitable, ImageBroken, InvalidInput
from wrennd.core.sizes import MIB
from wrennd.images import ext4
from wrennd.images.inject import Payload, fill
from wrennd.linux import userns
from wrennd.linux.process import PIPE, Process, spawn

UNPACK_TIMEOUT_S = 1800.0
MAX_ENTRIES = 1_000_000
# What is ours of a disk's inodes, and of its blocks: payload, journal and ext4's own tables.
_OUR_ENTRIES = 1000
_GIVE = "give the root directory of a tree, or a tar archive of one"
_LARGER = "--disk MIB makes a larger disk, which also holds more files"
_LOOK_UP = "docs/images.md says what the tree of an image must be like"
_READER = ("-I", "-m", "wrennd.images.pack")
_UNPACKER = ("-I", "-m", "wrennd.images.unpack")


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What came of it: the disk, how much was in it, and what is to be told about it."""

    disk: Path
    entries: int
    size_bytes: int
    notes: tuple[str, ...]


def take(source: Path, payload: Payload, *, work: Path, disk_mib: int, label: str) -> Taken:
    """Make a disk of the tree in `source`, a tar archive or a directory.

    work: scratch on the disk that the image goes to, not there yet; the image is left in it.
    Errors: InvalidInput (which entry is bad, and how), DeadlineExceeded, OSError (disk full).
    """
    tree, ours = work / "tree", work / "payload"
    for directory in (work, tree, ours):
        directory.mkdir(mode=0o700)
    fill(payload, ours)
    for directory in (work, tree):
        os.chown(directory, userns.FIRST_HOST_ID, userns.FIRST_HOST_ID)
    tree.chmod(0o755)
    answer = _unpack(source, tree, _packed(ours, work / "payload.tar"), disk_mib)
    disk = work / "disk"
    try:
        ext4.make_unprivileged(work, tree.name, disk.name, size_mib=disk_mib, label=label)
    except ImageBroken as error:
        raise InvalidInput(f"{source} can't be imported: {error}", hint=_LARGER) from error
    _make_ours(disk)
    return Taken(
        disk=disk,
        entries=answer["entries"],
        size_bytes=answer["bytes"],
        notes=tuple(answer["notes"]),
    )


def _packed(ours: Path, target: Path) -> Path:
    def by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(target, "w") as archive:
        archive.add(ours, ".", filter=by_root)
    return target


def _unpack(source: Path, tree: Path, payload: Path, disk_mib: int) -> dict[str, Any]:
    deadline = Deadline.after(UNPACK_TIMEOUT_S)
    with ExitStack() as held:
        with ExitStack() as given:  # descriptors that only the children keep
            archive, reader = _opened(held, given, source)
            fds = [os.open(tree, os.O_RDONLY | os.O_DIRECTORY), os.open(payload, os.O_RDONLY)]
            for fd in fds:
                given.callback(os.close, fd)
            order = {
                "parent": os.getpid(),
                "tree": fds[0],
                "payload": fds[1],
                "max_bytes": disk_mib * MIB,
                "max_entries": min(MAX_ENTRIES, ext4.inodes(disk_mib) - _OUR_ENTRIES),
            }
            argv = (sys.executable, *_UNPACKER, json.dumps(order))
            child = spawn(argv, stdin=archive, stdout=PIPE, stderr=PIPE, pass_fds=fds)
            held.enter_context(child)
        _wait(child, deadline, source)
        if reader is not None and _wait(reader, deadline, source) != 0:
            text = f"{source} can't be imported: {_said(reader)}"
            raise InvalidInput(text, hint=_LOOK_UP)
        return _answer(child, source)


def _opened(held: ExitStack, given: ExitStack, source: Path) -> tuple[int, Process | None]:
    """The archive as a descriptor, and the process that makes it if `source` is a directory."""
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        text = f"{source} can't be read: {error.strerror}"
        raise InvalidInput(text, hint=_GIVE) from error
    given.callback(os.close, fd)
    kind = os.fstat(fd).st_mode
    if stat.S_ISREG(kind):
        return fd, None
    if not stat.S_ISDIR(kind):
        raise InvalidInput(
            f"{source} is neither a directory nor a file",
            hint=_GIVE,
        )
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    given.callback(os.close, ours)
    given.callback(os.close, theirs)
    argv = (sys.executable, *_READER, str(os.getpid()), source.absolute())
    return ours, held.enter_context(spawn(argv, stdout=theirs, stderr=PIPE))


def _wait(child: Process, deadline: Deadline, source: Path) -> int:
    code = child.wait(deadline)
    if code is None:
        raise DeadlineExceeded(f"unpacking {source} took more than {UNPACK_TIMEOUT_S:g} s")
    return code


def _said(child: Process) -> str:
    """The last line of its stderr."""
    assert child.stderr is not None
    return (child.stderr.read().decode(errors="replace").strip().splitlines() or ["nothing"])[-1]


def _answer(child: Process, source: Path) -> dict[str, Any]:
    assert child.stdout is not None
    line = child.stdout.read()
    if not line:
        raise Error(f"the process that unpacks {source} ended with {_said(child)!r}")
    answer: dict[str, Any] = json.loads(line)
    match answer:
        case {"done": done}:
            return dict(done)
        case {"refused": why}:
            raise InvalidInput(
                f"{source} can't be imported: {why}",
                hint=_LARGER if answer["is_too_large"] else _LOOK_UP,
            )
        case {"unsuitable": why}:
            raise HostUnsuitable(
                f"this host lets no process have a user namespace: {why}",
                hint="sysctl user.max_user_namespaces must not be 0; a container must allow it",
            )
    raise OSError(answer["failed"], answer["text"])


def _make_ours(disk: Path) -> None:
    """Take what a child without rights has made: it must be a plain file that only it can be."""
    fd = os.open(disk, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise Error(f"{disk} is not the file that it should be")
        os.fchown(fd, 0, 0)
    finally:
        os.close(fd)
