"""What goes wrong with an archive, as errors that say what could not be done with which file."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from wrennd.archive.document import ArchiveError, OtherVersion
from wrennd.core.errors import NoCapacity, SnapshotBroken, SnapshotIncompatible


@contextmanager
def explained(what: str, done: str) -> Iterator[None]:
    """what: the file. done: what is to be done with it, as in `imported`.

    Errors: SnapshotBroken (cut short, changed, not what it should be), SnapshotIncompatible
    (another version), NoCapacity (the disk became full).
    """
    try:
        yield
    except OtherVersion as error:
        raise SnapshotIncompatible(
            f"{what} can't be {done}: {error}", hint="use the version of Wrenn that wrote it"
        ) from error
    except ArchiveError as error:
        raise SnapshotBroken(
            f"{what} can't be {done}: {error}",
            hint="copy or make the file again: sha256sum on both sides tells whether it changed",
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoCapacity(
            f"the disk became full while {what} was {done}", hint="wrenn df shows what takes it"
        ) from error
