"""The file tree: walk it, remove from it, move within it. Long work is a generator of short steps.

Below a directory names are followed from descriptor to descriptor and never through symlinks, so
that nobody who changes the tree meanwhile leads envd, which is root, out of it.
"""

from __future__ import annotations

import errno
import os
import stat

from wrennd.envd.paths import make_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wrennd.envd.users import Account

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def walk(root: str, depth: int) -> Iterator[str]:
    """Paths below a directory, relative to it: depth first, each directory's names in the order
    of their bytes. Directories that can't be read have no names. Errors: OSError for the root."""
    stack = [("", _names(root), 1)]
    while stack:
        prefix, names, level = stack[-1]
        if not names:
            stack.pop()
            continue
        name = prefix + names.pop()
        yield name
        if level < depth:
            try:
                if stat.S_ISDIR(os.lstat(f"{root}/{name}").st_mode):
                    stack.append((f"{name}/", _names(f"{root}/{name}"), level + 1))
            except OSError:
                continue


def _names(folder: str) -> list[str]:
    """Last one first, since they are taken from the end."""
    return sorted(os.listdir(folder), key=os.fsencode, reverse=True)


def remove(path: str) -> Iterator[None]:
    """Remove a file, or a directory with all that is in it; what isn't there needs no removal.

    Errors: OSError, with the rest left in place.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        yield from _remove_directory(path)


def _remove_directory(path: str) -> Iterator[None]:
    """With one descriptor however deep it goes: the way up is `..`, if that is still the way."""
    folder = os.open(path, _OPEN_DIRECTORY)
    stack = [(path, (0, 0), os.listdir(folder))]
    try:
        while stack:
            name, parent, left = stack[-1]
            if left:
                child = left.pop()
                below = _unlink(child, folder)
                if below >= 0:
                    stack.append((child, _identity(folder), os.listdir(below)))
                    os.close(folder)
                    folder = below
            elif len(stack) > 1:
                folder = _step_up(folder, parent)
                os.rmdir(name, dir_fd=folder)
                stack.pop()
            else:
                os.rmdir(path)
                stack.pop()
            yield
    finally:
        os.close(folder)


def _identity(folder: int) -> tuple[int, int]:
    found = os.fstat(folder)
    return found.st_dev, found.st_ino


def _step_up(folder: int, parent: tuple[int, int]) -> int:
    """The directory above, which must be the one that it was; the other one is closed."""
    above = os.open("..", _OPEN_DIRECTORY, dir_fd=folder)
    if _identity(above) != parent:
        os.close(above)
        raise OSError(errno.EBUSY, "it was moved meanwhile")
    os.close(folder)
    return above


def _unlink(name: str, folder: int) -> int:
    """Unlink a name; a directory is opened instead, for its own names to go first."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return -1
    except IsADirectoryError:
        return os.open(name, _OPEN_DIRECTORY, dir_fd=folder)
    return -1


def make_directory(path: str, account: Account) -> None:
    """With missing parents. Errors: FileExistsError for a directory, NotADirectoryError for
    anything else that is there, OSError."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        make_directories(path, account)
        return
    if stat.S_ISDIR(mode):
        raise FileExistsError(errno.EEXIST, path)
    raise NotADirectoryError(errno.ENOTDIR, path)


def move(source: str, destination: str, account: Account) -> None:
    """Rename, with missing parents of the destination made. Errors: OSError."""
    os.lstat(source)
    make_directories(os.path.dirname(destination), account)
    os.rename(source, destination)
