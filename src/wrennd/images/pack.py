"""The child that reads somebody's directory and writes it to stdout as a tar for `unpack.py`.

`python -m wrennd.images.pack PARENT DIRECTORY`, as root, since the tree's files belong to many
users. The directory becomes its root, so that no link in it, changed while it is read or not, leads
to files of the host. From then on nothing may load code, which would be the tree's: no module is
imported, and no name of a user is looked up, for which libc loads libraries. Other filesystems
mounted in it are left out. When something can't be packed, one line on stderr says why, and the
exit code is 1.
"""

import encodings.idna
import os
import stat
import sys
import tarfile
from collections.abc import Iterator

from wrennd.linux import confine, userns

_LATER = (encodings.idna,)  # behind its new root this process finds no module
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def main() -> None:
    parent, directory = sys.argv[1:]
    try:
        confine.bind_to_parent({"parent": int(parent)})
        os.chdir(directory)
        sys.meta_path.clear()
        os.chroot(".")
        userns.forswear()
        with tarfile.open(
            fileobj=sys.stdout.buffer,
            mode="w|",
            format=tarfile.PAX_FORMAT,
            errors="surrogateescape",
        ) as archive:
            seen: dict[tuple[int, int], str] = {}
            for name in _names():
                _add(archive, name, seen)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        pass  # whoever reads it has seen enough, and says why
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # a second flush, at the interpreter's end, could fail


def _names() -> Iterator[str]:
    """Every name of the directory's own filesystem, parents first, "" for the root."""
    device = os.lstat("/").st_dev
    todo = [""]
    while todo:
        name = todo.pop()
        yield name
        found = os.lstat(f"/{name}")
        if stat.S_ISDIR(found.st_mode) and found.st_dev == device:
            below = sorted(os.listdir(f"/{name}"), reverse=True)  # noqa: PTH208 - names only
            todo += [f"{name}/{part}" if name else part for part in below]


def _add(archive: tarfile.TarFile, name: str, seen: dict[tuple[int, int], str]) -> None:
    """seen: the first name of each file that has several, by device and inode."""
    path = f"/{name}"
    _check(name)
    member = _member(path, name or ".", os.lstat(path), seen)
    if not member.issym() and not member.islnk():
        member.pax_headers = _xattrs(path)
    if not member.isreg():
        archive.addfile(member)
        return
    with os.fdopen(os.open(path, _READ), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{name!r} was changed while it was read")
        try:
            archive.addfile(member, file)
        except OSError as error:
            if error.errno is not None:
                raise
            raise ValueError(f"{name!r} became shorter while it was read") from error


def _member(
    path: str, name: str, found: os.stat_result, seen: dict[tuple[int, int], str]
) -> tarfile.TarInfo:
    """What tarfile's own would say, but for the names of users."""
    kind = _TYPES.get(stat.S_IFMT(found.st_mode))
    if kind is None:
        raise ValueError(f"{name!r} is a socket: an image has none")
    made = tarfile.TarInfo(name)
    made.type = kind
    made.uid, made.gid, made.mtime = found.st_uid, found.st_gid, found.st_mtime
    made.mode = stat.S_IMODE(found.st_mode)
    if kind == tarfile.SYMTYPE:
        made.linkname = os.readlink(path)  # noqa: PTH115 - as it is
    elif kind == tarfile.REGTYPE:
        first = seen.setdefault((found.st_dev, found.st_ino), name) if found.st_nlink > 1 else name
        made.size = found.st_size
        if first != name:
            made.type, made.linkname, made.size = tarfile.LNKTYPE, first, 0
    return made


def _check(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name {name!r} is not UTF-8") from None


def _xattrs(path: str) -> dict[str, str]:
    """As GNU tar writes them. A value of arbitrary bytes is escaped, and comes out again."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:  # this filesystem has none
        return {}
    found = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    return {
        f"SCHILY.xattr.{name}": value.decode(errors="surrogateescape")
        for name, value in found.items()
    }


if __name__ == "__main__":
    main()
