"""The system user as which the control plane runs, and the directories that are his."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from wrennd.core.errors import HostUnsuitable
from wrennd.linux import process

TOOL_TIMEOUT_S = 30


@dataclass(frozen=True, kw_only=True)
class Account:
    name: str
    uid: int
    gid: int


def find(name: str) -> Account | None:
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name=name, uid=found.pw_uid, gid=found.pw_gid)


def ensured(name: str) -> Account:
    """Made, without a home, a shell or a password, if there is none. Errors: HostUnsuitable."""
    found = find(name)
    if found is None:
        try:
            process.run(
                (
                    *("useradd", "--system", "--user-group", "--no-create-home"),
                    *("--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", name),
                ),
                timeout_s=TOOL_TIMEOUT_S,
            )
        except OSError as error:
            raise HostUnsuitable(
                f"the system user {name} could not be made: {error}",
                hint=f"make it by other means, as with useradd --system {name}",
            ) from error
        found = find(name)
    if found is None or found.uid == 0:
        raise HostUnsuitable(f"there is no system user {name} without rights")
    return found


def remove(name: str) -> None:
    """Nothing happens when there is none."""
    if find(name) is not None:
        process.run(("userdel", name), timeout_s=TOOL_TIMEOUT_S)


def give(directory: Path, account: Account) -> None:
    """A directory that only he and root can look into; those above it are root's."""
    directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    os.chown(directory, account.uid, account.gid)
    directory.chmod(0o700)
