"""What a server keeps beside the data directory, for a backup and back from one: its database, if
that is the SQLite file of its own, and the key of its first start.
"""

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

from wrennd.core.errors import AlreadyExists, Error
from wrennd.linux import files
from wrennd.server import account
from wrennd.server.settings import USER, settings
from wrennd.storage.layout import Layout

DATABASE, KEY = "wrenn.db", "admin.key"
_BUSY_S = 60.0
_PAGES = 1000  # copied at once: what writes meanwhile waits for so many


def keep(layout: Layout, directory: Path) -> list[str]:
    """Copy it into a directory, also while the server works. What is missing, as sentences.

    The server's user owns what lies there: a link in its place is refused, not followed.

    Errors: Error when the database or the key can't be read.
    """
    found, notes = settings(layout), []
    database = found.state_dir / DATABASE
    if os.path.lexists(database):
        copy_database(database, directory / DATABASE)
    else:
        notes.append(
            f"there is no database {database}; one elsewhere has to be backed up by its own means"
        )
    if os.path.lexists(found.key_file):
        copy_key(found.key_file, directory / KEY)
    return notes


def copy_key(source: Path, target: Path) -> None:
    """Errors: Error when it is anything but a file."""
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Error(f"the key {source} can't be copied: {error.strerror}") from error
    with os.fdopen(fd, "rb") as there:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Error(f"the key {source} can't be copied: it is no file")
        with target.open("xb") as here:
            os.fchmod(here.fileno(), 0o600)
            shutil.copyfileobj(there, here)


def copy_database(source: Path, target: Path) -> None:
    """As it is at one moment, whoever writes to it. Errors: Error."""
    if source.is_symlink() or not source.is_file():
        raise Error(f"the database {source} can't be copied: it is no file")
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=_BUSY_S)) as there,
            closing(sqlite3.connect(target)) as here,
        ):
            there.backup(here, pages=_PAGES)
            # One file: what the write-ahead log would have is in it.
            here.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise Error(f"the database {source} can't be copied: {error}") from error
    target.chmod(0o600)


def check_is_free(layout: Layout) -> None:
    """That no server of that installation keeps anything here. Errors: AlreadyExists."""
    state_dir = settings(layout).state_dir
    if state_dir.is_dir() and any(state_dir.iterdir()):
        raise AlreadyExists(
            f"installation {layout.installation} has a server's data on this machine: {state_dir}",
            hint="wrenn uninstall --purge, with its --data-dir, removes it",
        )


def put_back(layout: Layout, directory: Path) -> list[str]:
    """Put what `keep` had copied where a server will look for it. What was left out, as sentences.

    What is there from a restore that was broken off is replaced. Errors: HostUnsuitable.
    """
    found = settings(layout)
    notes: list[str] = []
    if not (directory / DATABASE).exists() and not (directory / KEY).exists():
        return notes
    user = account.ensured(USER)
    account.give(found.state_dir, user)
    if (directory / DATABASE).exists():
        for suffix in ("-wal", "-shm"):
            (found.state_dir / f"{DATABASE}{suffix}").unlink(missing_ok=True)
        _put(directory / DATABASE, found.state_dir / DATABASE, user)
    if found.key_file.exists() and found.key_file.parent != found.state_dir:
        notes.append(f"{found.key_file} is there already, and was left as it is")
    elif (directory / KEY).exists():
        if found.key_file.parent != found.state_dir:
            account.give(found.key_file.parent, user)
        _put(directory / KEY, found.key_file, user)
    return notes


def _put(source: Path, target: Path, user: account.Account) -> None:
    """The directory is the user's: nothing that lies there is followed."""
    made = target.with_name(f".{target.name}.tmp")
    made.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with source.open("rb") as there, os.fdopen(os.open(made, flags, 0o600), "wb") as here:
        shutil.copyfileobj(there, here)
        here.flush()
        os.fsync(here.fileno())
        os.fchown(here.fileno(), user.uid, user.gid)
    made.rename(target)
    files.sync_directory(target.parent)
