"""Accounts in a root filesystem that is being built: passwd, group, shadow, homes, sudo.

Works on a tree that only trusted tools wrote, as root, without running anything in it.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from wrennd.images.recipe import User

# Password "!": nobody logs in with one. The other fields of shadow stay empty: nothing expires.
_NO_PASSWORD = "!"


def add(tree: Path, users: Iterable[User]) -> None:
    """Add each user, with a group and a home of its own.

    Errors: ValueError when a name or number is taken.
    """
    for user in users:
        _check_free(tree, user)
        ids = f"{user.uid}:{user.uid}"
        _append(tree / "etc/passwd", f"{user.name}:x:{ids}::{user.home}:{user.shell}", 0o644)
        _append(tree / "etc/group", f"{user.name}:x:{user.uid}:", 0o644)
        _append(tree / "etc/shadow", f"{user.name}:{_NO_PASSWORD}:::::::", 0o640)
        if (tree / "etc/gshadow").exists():
            _append(tree / "etc/gshadow", f"{user.name}:{_NO_PASSWORD}::", 0o640)
        _make_home(tree, user)
        if user.sudo:
            _allow_sudo(tree, user)


def _check_free(tree: Path, user: User) -> None:
    for name in ("passwd", "group"):
        path = tree / "etc" / name
        for line in path.read_text().splitlines() if path.exists() else ():
            taken, _, number = line.split(":")[:3]
            if taken == user.name or number == str(user.uid):
                raise ValueError(f"{name} has {line!r} already, so {user.name!r} can't be added")


def _append(path: Path, line: str, mode: int) -> None:
    """Lines are added in place: owner, group and mode of an existing file stay."""
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as opened:
        opened.write(line + "\n")
    if is_new:
        path.chmod(mode)


def _make_home(tree: Path, user: User) -> None:
    home = tree / user.home.lstrip("/")
    skeleton = tree / "etc/skel"
    if skeleton.is_dir():
        shutil.copytree(skeleton, home, symlinks=True)
    else:
        home.mkdir(parents=True)
    home.chmod(0o755)
    for path in (home, *home.rglob("*")):
        os.chown(path, user.uid, user.uid, follow_symlinks=False)


def _allow_sudo(tree: Path, user: User) -> None:
    path = tree / "etc/sudoers.d" / user.name
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    path.write_text(f"{user.name} ALL=(ALL:ALL) NOPASSWD: ALL\n")
    path.chmod(0o440)
