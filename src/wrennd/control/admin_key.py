"""The first key: made at the first start, written to a file that its owner alone reads."""

import os
from pathlib import Path

from sqlalchemy import Connection

from wrennd.control.store import keys
from wrennd.control.store.database import Database

NAME = "admin"


def ensure_admin_key(database: Database, path: Path) -> None:
    """See to it that the project `default` has a key that counts, and that `path` has its text.

    A key that is in the file already is registered, not replaced: a lost database must not lock
    its clients out. Whoever started us shows it. Errors: OSError, Unavailable.
    """

    def work(connection: Connection) -> None:
        keys.ensure_project(connection, keys.DEFAULT_PROJECT)
        if keys.has_any(connection, keys.DEFAULT_PROJECT):
            return
        key = _read(path)
        if not key or keys.is_known(connection, key):  # known, but revoked
            key = keys.new_key()
        keys.add(connection, keys.DEFAULT_PROJECT, NAME, key)
        # Written before it is committed: a key that counts and that nobody has is lost.
        _write(path, key)

    database.run_here(work)


def _read(path: Path) -> str:
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return ""
    return text if keys.KEY.fullmatch(text) else ""


def _write(path: Path, key: str) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_name(path.name + ".tmp")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
