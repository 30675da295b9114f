"""A user namespace for one process: root inside, on the host a range of ids that nobody else has.

In it a process may give files any owner and mode, as the tree of a root filesystem needs, without
any right on the host: what it makes belongs there to ids of the range, it can make no devices, and
it has no network. `enter` is for a program of ours (single-threaded, started as root for this);
`python -m wrennd.linux.userns PARENT PROGRAM ARGS...` becomes another one.
"""

import ctypes
import os
import resource
import sys
from collections.abc import Sequence

from wrennd.linux import confine
from wrennd.linux.libc import check, function

# Far from users, from the subordinate ids of tools, and from the VMMs' own (network/addressing.py).
FIRST_HOST_ID = 1_900_000_000
COUNT = 1 << 24
# Python with an xz stream's largest dictionary is well below; a header that wants more is a bomb.
MEMORY_BYTES = 1 << 30
_CLONE_NEWUSER = 0x10000000
_FLAGS = (
    _CLONE_NEWUSER
    | confine.CLONE_NEWNS
    | confine.CLONE_NEWUTS
    | confine.CLONE_NEWIPC
    | confine.CLONE_NEWNET
)
_unshare = function("unshare", ctypes.c_int)
_prctl = function("prctl", ctypes.c_int, *[ctypes.c_ulong] * 4)


def enter(parent: int, root: int | None = None) -> None:
    """Become root of a new namespace for good, and end with the process `parent`.

    root: a directory's descriptor that becomes `/` (and is closed). Afterwards this process can
    start no other and gain no right. Errors: OSError; half of it may be done, so end then.
    """
    _unshare_mapped()
    os.setresgid(0, 0, 0)
    os.setgroups([])
    os.setresuid(0, 0, 0)
    os.umask(0o022)
    if root is not None:
        os.fchdir(root)
        os.chroot(".")
        os.close(root)
    _limit()
    confine.bind_to_parent({"parent": parent})
    forswear()


def wrapped(argv: Sequence[str | os.PathLike[str]]) -> tuple[str | os.PathLike[str], ...]:
    """The command that runs `argv` so, and that ends with this process."""
    return (sys.executable, "-I", "-m", "wrennd.linux.userns", str(os.getpid()), *argv)


def forswear() -> None:
    """Gain no right from now on, and make no call that no program of ours needs (see `confine`)."""
    check(_prctl(confine.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    confine.install_filter({})


def _unshare_mapped() -> None:
    """Only who has rights outside may map ids, so a child that stays there does it."""
    us = os.getpid()
    told, tell = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(tell)
        os._exit(0 if os.read(told, 1) and _map(us) else 1)
    os.close(told)
    try:
        check(_unshare(_FLAGS), "unshare")
        os.write(tell, b".")
    finally:
        os.close(tell)
        status = os.waitpid(child, 0)[1]
    if status != 0:
        raise PermissionError("the ids of a user namespace could not be mapped")


def _map(pid: int) -> bool:
    for kind in ("uid_map", "gid_map"):
        try:
            fd = os.open(f"/proc/{pid}/{kind}", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, f"0 {FIRST_HOST_ID} {COUNT}\n".encode())
            os.close(fd)
        except OSError:
            return False
    return True


def _limit() -> None:
    """No memory without end, no core file, and no second process that could outlive this one."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def main() -> None:
    parent, *argv = sys.argv[1:]
    try:
        enter(int(parent))
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.exit(f"userns: {error}")


if __name__ == "__main__":
    main()
