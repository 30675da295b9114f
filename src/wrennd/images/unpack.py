"""The unprivileged child that makes a tree of somebody's archive, and puts our files into it.

`python -m wrennd.images.unpack ORDER` with the archive on stdin; ORDER is JSON: `parent` (a pid),
`tree` and `payload` (descriptors: an empty directory, a tar of ours), `max_bytes`, `max_entries`.
First it gives up every right (`linux/userns.py`) and makes the tree its root directory; only then
does it read a byte. Its answer is one line of JSON on stdout: {"done": {...}},
{"refused": "..."}, or what of the host failed.
"""

import bz2
import encodings.idna
import errno
import gzip
import json
import lzma
import os
import sys
import tarfile
import zlib
from typing import IO, Any

from wrennd.images.entries import BadTree, TooLarge, judge
from wrennd.images.fitting import fit_out
from wrennd.images.grow import Tree
from wrennd.linux import userns

# Imported now: behind its new root this process finds no module.
_LATER = (bz2, encodings.idna, gzip, lzma, zlib)
_ZSTD = b"\x28\xb5\x2f\xfd"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, UnicodeError)


class Member(tarfile.TarInfo):
    """A header whose damage is an error: TarFile takes it for the end, and drops the rest."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "Member":
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None
        except ValueError as error:  # numbers that are none, in headers that describe holes
            raise tarfile.ReadError(f"a header can't be read: {error}") from None


def main() -> None:
    order = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(_answer(order)) + "\n")
    sys.stdout.flush()


def _answer(order: dict[str, Any]) -> dict[str, Any]:
    try:
        sys.meta_path.clear()
        userns.enter(order["parent"], order["tree"])
    except OSError as error:
        return {"unsuitable": str(error)}
    try:
        return {"done": _make(order)}
    except BadTree as error:
        return {"refused": str(error), "is_too_large": isinstance(error, TooLarge)}
    except OSError as error:
        return {"failed": error.errno, "text": str(error)}


def _make(order: dict[str, Any]) -> dict[str, Any]:
    tree = Tree(os.open("/", os.O_RDONLY | os.O_DIRECTORY), order["max_bytes"])
    _unpack(sys.stdin.buffer, tree, order["max_entries"])
    tree.finish()
    with os.fdopen(order["payload"], "rb") as payload:
        notes = fit_out(payload)
    return {"entries": tree.entries, "bytes": tree.written, "notes": [*tree.notes(), *notes]}


def _unpack(stream: IO[bytes], tree: Tree, max_entries: int) -> None:
    try:
        with _opened(stream) as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined] # or a million stay in memory
                if tree.entries >= max_entries:
                    raise TooLarge(f"it has more than {max_entries} entries")
                entry = judge(member, max_id=userns.COUNT - 1)
                try:
                    tree.add(entry, member, archive)
                except OSError as error:
                    raise _explained(error, member.name) from error
    except _DAMAGED as error:
        raise BadTree(f"the archive is damaged: {error}") from error
    except (MemoryError, RecursionError) as error:
        raise BadTree("the archive has a header that does not fit into memory") from error


def _opened(stream: IO[bytes]) -> tarfile.TarFile:
    if stream.peek(4)[:4] == _ZSTD:  # type: ignore[attr-defined]
        raise BadTree("the archive is compressed by zstd: plain tar, gzip, bzip2 and xz are read")
    try:
        return tarfile.open(
            fileobj=stream, mode="r|*", tarinfo=Member, encoding="utf-8", errors="surrogateescape"
        )
    except (tarfile.ReadError, EOFError) as error:
        raise BadTree("it is no tar archive: plain, gzip, bzip2 and xz are read") from error


def _explained(error: OSError, name: str) -> Exception:
    """Of a full disk our host has to tell; everything else is about that entry."""
    if error.errno is None:  # decompressors say it like this
        return BadTree(f"the archive is damaged at {name!r}: {error}")
    if error.errno in _FULL:
        return error
    return BadTree(f"{name!r} can't be made: {os.strerror(error.errno)}")


if __name__ == "__main__":
    main()
