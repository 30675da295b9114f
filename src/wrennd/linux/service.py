"""Exec wrapper for a part of the server: bound to its parent, on request without any right.

    python -I -S -c BOOT DESCRIPTION

The description is JSON:
    argv, env, cwd   the program
    parent           pid whose death sends it SIGTERM
    uid, gid         whom it becomes, with no groups, no capabilities and no_new_privs; null: it
                     keeps what it has
    hide, show       directories to be covered by an empty one, and paths to be seen all the same:
                     a user without rights can't pass a directory of root's on the way to the
                     interpreter, so the way is built anew for him (`way`)

All of this happens between fork and exec, where no other thread may exist; standard library and
`confine.py` only. Exits with 126 and one line on stderr when a step fails.
"""

import json
import os
import signal
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import wrennd
from wrennd.linux import confine


@dataclass(frozen=True, kw_only=True)
class Description:
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    parent: int
    uid: int | None = None
    gid: int | None = None
    hide: Sequence[str] = ()
    show: Sequence[str] = ()


def argv(interpreter: str | os.PathLike[str], description: Description) -> list[str]:
    """What to spawn. The interpreter finds this very package, whatever its own path is."""
    boot = (
        f"import sys; sys.path.insert(0, {os.fspath(package_parent())!r}); "
        "from wrennd.linux.service import main; main()"
    )
    return [os.fspath(interpreter), "-I", "-S", "-c", boot, json.dumps(asdict(description))]


def package_parent() -> Path:
    return Path(os.path.realpath(wrennd.__path__[0])).parent


def way(paths: Iterable[Path]) -> tuple[list[str], list[str]]:
    """`hide` and `show` so that anybody can get to these paths, read-only."""
    hide: list[str] = []
    show: list[str] = []
    for path in paths:
        barrier = _barrier(path)
        if barrier is not None:
            show.append(os.fspath(path))
            if os.fspath(barrier) not in hide:
                hide.append(os.fspath(barrier))
    return hide, show


def _barrier(path: Path) -> Path | None:
    """The first directory above it that others may not pass."""
    for above in reversed(path.parents):
        if not above.stat().st_mode & stat.S_IXOTH:
            return above
    return None


def main() -> NoReturn:
    want = json.loads(sys.argv[1])
    try:
        _build_way(want)
        if want["uid"] is not None:
            os.umask(0o077)
            _drop_privileges(want["uid"], want["gid"])
        _bind_to_parent(want["parent"])
        os.chdir(want["cwd"])
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(want["argv"][0], want["argv"], want["env"])
    except (OSError, ValueError) as error:
        os.write(2, f"service: {error}\n".encode())
        os._exit(126)


def _build_way(want: dict[str, Any]) -> None:
    """In a mount namespace of our own."""
    if not want["hide"]:
        return
    confine.check(confine.libc.unshare(confine.CLONE_NEWNS), "unshare")
    confine.mount("none", "/", flags=confine.MS_REC | confine.MS_PRIVATE)
    os.umask(0o022)
    sources = [(os.open(path, os.O_PATH | os.O_CLOEXEC), path) for path in want["show"]]
    for directory in want["hide"]:
        confine.mount("tmpfs", directory, kind="tmpfs", flags=0, data="mode=0755,size=1m")
    for fd, path in sources:
        confine.bind(fd, path, writable=False)
        os.close(fd)


def _drop_privileges(uid: int, gid: int) -> None:
    """As `confine.drop_privileges`, for a user whose group has another number."""
    confine.drop_capabilities()
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _bind_to_parent(parent: int) -> None:
    """After the change of uid, which clears the death signal."""
    term = int(signal.SIGTERM)
    confine.check(confine.libc.prctl(confine.PR_SET_PDEATHSIG, term, 0, 0, 0), "death signal")
    if os.getppid() != parent:
        raise ValueError("the parent died before the death signal was set")
