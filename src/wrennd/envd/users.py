"""Accounts of the guest, read from /etc/passwd and /etc/group.

Read by ourselves, and again when they have changed: the interpreter's own libc would look for the
guest's name service modules, which belong to another libc, and users are added while envd runs.
"""

from __future__ import annotations

import os

from wrennd.envd.connect import RpcError

PASSWD = "/etc/passwd"
GROUP = "/etc/group"
ROOT = "root"
USUAL = "user"


class Account:
    """One line of /etc/passwd."""

    __slots__ = ("gid", "home", "name", "uid")

    def __init__(self, name: str, uid: int, gid: int, home: str) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.home = home


def parse_passwd(text: str) -> dict[str, Account]:
    """Accounts by name; the first line of a name counts, broken lines don't."""
    accounts: dict[str, Account] = {}
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) >= 6 and parts[0] and parts[2].isdigit() and parts[3].isdigit():
            account = Account(parts[0], int(parts[2]), int(parts[3]), parts[5] or "/")
            accounts.setdefault(account.name, account)
    return accounts


def parse_groups(text: str, account: Account) -> list[int]:
    """The groups of an account, its primary one first."""
    groups = [account.gid]
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) >= 4 and parts[2].isdigit() and account.name in parts[3].split(","):
            gid = int(parts[2])
            if gid not in groups:
                groups.append(gid)
    return groups


class _File:
    """The text of a file, read again when it has changed: each reading costs every command 1 ms."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: tuple[int, ...] = ()
        self._text = ""

    def read(self) -> str:
        """Empty when there is no such file."""
        try:
            found = os.stat(self._path)
            known = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
            if known != self._known:
                with open(self._path, encoding="utf-8", errors="surrogateescape") as file:
                    self._text = file.read()
                self._known = known
        except FileNotFoundError:
            self._known, self._text = (), ""
        return self._text


_files: dict[str, _File] = {}


def _read(path: str) -> str:
    return _files.setdefault(path, _File(path)).read()


def groups_of(account: Account) -> list[int]:
    return parse_groups(_read(GROUP), account)


def user_names() -> dict[int, str]:
    """The first name of each uid."""
    names: dict[int, str] = {}
    for account in parse_passwd(_read(PASSWD)).values():
        names.setdefault(account.uid, account.name)
    return names


def group_names() -> dict[int, str]:
    """The first name of each gid."""
    names: dict[int, str] = {}
    for line in _read(GROUP).splitlines():
        parts = line.split(":")
        if len(parts) >= 3 and parts[0] and parts[2].isdigit():
            names.setdefault(int(parts[2]), parts[0])
    return names


def find(name: str) -> Account:
    """Errors: RpcError unauthenticated when there is no such user, or we may not become it."""
    account = parse_passwd(_read(PASSWD)).get(name)
    if account is None and name == ROOT:
        account = Account(ROOT, 0, 0, "/root")
    if account is None:
        raise RpcError("unauthenticated", f"invalid username: '{name}'")
    if os.geteuid() != 0 and account.uid != os.geteuid():
        raise RpcError("unauthenticated", f"envd has no right to act for user '{name}'")
    return account


def default() -> Account:
    """`user` where it exists, else root; without root's rights, whoever we are."""
    accounts = parse_passwd(_read(PASSWD))
    uid = os.geteuid()
    if uid == 0:
        return accounts.get(USUAL) or find(ROOT)
    for account in accounts.values():
        if account.uid == uid:
            return account
    return Account(str(uid), uid, os.getegid(), "/")
