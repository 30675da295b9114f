"""A foreign tree made fit for a guest: is it a distribution at all, our files, the usual user.

Works on the root directory of the process that calls it: only for the child of `unpack.py`.
"""

import os
import tarfile
from pathlib import Path
from typing import IO

from wrennd.images import accounts
from wrennd.images.entries import BadTree
from wrennd.images.inject import make_room
from wrennd.images.recipe import User

_ROOT = Path("/")
_SHELL = Path("/bin/sh")
_ELF_MACHINES = (3, 62)  # i386, x86-64
_NAME = "user"
_FIRST_ID, _LAST_ID = 1000, 59999


def fit_out(payload: IO[bytes]) -> list[str]:
    """Check the tree and put into it what guests need. Returns what else there is to be said.

    payload: a tar of what belongs into /usr/lib/wrenn. Errors: BadTree; OSError on a full disk.
    """
    _check_shell()
    try:
        ours = make_room(_ROOT)
    except (FileExistsError, NotADirectoryError) as error:
        raise BadTree(f"{error.filename} is in the way of what every image carries") from error
    with tarfile.open(fileobj=payload) as archive:
        # An argument of extractall from Python 3.11.4 on only; Debian 12 has 3.11.2, without any.
        archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
        archive.extractall(ours, numeric_owner=True)
    return _add_user()


def _check_shell() -> None:
    try:
        fd = os.open(_SHELL, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadTree(
            f"there is no {_SHELL} in it ({error.strerror}), "
            "so it is not the root of a distribution"
        ) from error
    with os.fdopen(fd, "rb") as file:
        head = file.read(20)
        is_program = os.fstat(file.fileno()).st_mode & 0o111
    if not is_program:
        raise BadTree(f"{_SHELL} in it can't be executed")
    machine = int.from_bytes(head[18:20], "little")
    if head.startswith(b"\x7fELF") and machine not in _ELF_MACHINES:
        raise BadTree(f"{_SHELL} in it is for another processor (ELF machine {machine})")


def _add_user() -> list[str]:
    """The user that commands run as, where there is none of that name."""
    try:
        passwd = Path("/etc/passwd").read_text() if Path("/etc/passwd").exists() else ""
        if any(line.startswith(f"{_NAME}:") for line in passwd.splitlines()):
            return []
        shell = "/bin/bash" if Path("/bin/bash").exists() else str(_SHELL)
        new = User(name=_NAME, uid=_free_id(passwd), home="/home/user", shell=shell, sudo=False)
        accounts.add(_ROOT, [new])
    except (ValueError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        return [f"the user {_NAME!r} could not be added: {error}"]
    return [f"the user {_NAME!r} was added, with id {new.uid}"]


def _free_id(passwd: str) -> int:
    group = Path("/etc/group").read_text() if Path("/etc/group").exists() else ""
    fields = [line.split(":") for line in (passwd + "\n" + group).splitlines()]
    taken = {field[2] for field in fields if len(field) > 2}
    return next(n for n in range(_FIRST_ID, _LAST_ID) if str(n) not in taken)
