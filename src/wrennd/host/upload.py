"""Files of the host into a guest: one file over `/files`, a tree as a tar stream.

The tree goes through the busybox that every image carries in `/usr/lib/wrenn`, so that no image
needs tar. Whoever the command runs as owns what arrives; modes and symlinks are kept.
"""

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from wrennd.core.errors import InvalidInput
from wrennd.core.model import Command
from wrennd.core.sandboxes import Exit, Output
from wrennd.host.envd_client import EnvdClient, Started

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BUSYBOX = "/usr/lib/wrenn/busybox"
UNPACK = '"$0" mkdir -p "$1" && exec "$0" tar -x -C "$1"'
CHUNK_BYTES = 256 * 1024


def upload(client: EnvdClient, source: Path, destination: str, *, user: str) -> None:
    """Copy a file or a tree. A destination that ends with / takes a file under its own name.

    Errors: InvalidInput for what is neither file nor directory, or can't be read; NoCapacity when
    the guest's disk is full.
    """
    try:
        mode = source.stat().st_mode
        if stat.S_ISDIR(mode):
            _upload_tree(client, source, destination, user)
        elif stat.S_ISREG(mode):
            target = destination + source.name if destination.endswith("/") else destination
            with source.open("rb") as file:
                client.upload_file(target, file, mode=stat.S_IMODE(mode), user=user)
        else:
            raise InvalidInput(f"{source} is neither a file nor a directory")
    except PermissionError as error:
        raise InvalidInput(f"{error.filename} can't be read: {error.strerror}") from error


def _upload_tree(client: EnvdClient, source: Path, destination: str, user: str) -> None:
    command = Command(
        argv=(BUSYBOX, "sh", "-c", UNPACK, BUSYBOX, destination), user=user, has_stdin=True
    )
    with client.start(command) as started:
        sink = io.BufferedWriter(_Sink(started), CHUNK_BYTES)
        with sink, tarfile.open(mode="w|", fileobj=sink) as archive:
            for name in sorted(os.listdir(source)):  # noqa: PTH208 - names, not paths
                archive.add(source / name, arcname=name, filter=_checked)
        started.close_stdin()
        said = b""
        for event in started.events():
            if isinstance(event, Output):
                said += event.data
            elif isinstance(event, Exit) and event.code != 0:
                words = said.decode(errors="replace").strip()
                raise InvalidInput(f"{source} could not be unpacked at {destination!r}: {words}")


def _checked(member: tarfile.TarInfo) -> tarfile.TarInfo:
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise InvalidInput(f"{member.name} is neither a file, a directory nor a link")
    member.uid = member.gid = 0  # ignored: the guest's tar runs as the user
    member.uname = member.gname = ""
    return member


class _Sink(io.RawIOBase):
    """What tarfile writes to: the command's stdin, for as long as it takes any."""

    def __init__(self, started: Started) -> None:
        self._started = started
        self._takes_more = True

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        # A tar that ended early has said why; its exit code tells when its events are read.
        sent = bytes(data)
        self._takes_more = self._takes_more and self._started.send_stdin(sent)
        return len(sent)
