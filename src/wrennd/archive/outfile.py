"""The file that an archive becomes: it has its name when it is complete and on the disk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from wrennd.core.errors import AlreadyExists, InvalidInput
from wrennd.linux.files import sync_directory


@contextmanager
def made(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A new file for the caller alone (0600), which is `path` after the block; gone on an error.

    Errors: AlreadyExists; InvalidInput where no file can be made.
    """
    if not overwrite and path.exists():
        raise AlreadyExists(f"there is a file {path} already", hint="--force replaces it")
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise InvalidInput(f"{path} can't be written: {error.strerror}") from error
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    sync_directory(path.parent)
