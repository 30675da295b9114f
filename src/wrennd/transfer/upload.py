"""Files of the host into a guest, as a tar stream.

It goes through the busybox that every image carries in `/usr/lib/wrenn`, so that no image needs
tar. It is unpacked as the command's user, who owns what arrives and must be allowed to write
there; modes and symlinks are kept.
"""

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wrennd.core.errors import InvalidInput, NotFound
from wrennd.core.model import Command
from wrennd.core.sandboxes import Exit, Output, Running
from wrennd.transfer.guest import BUSYBOX, Guest

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

UNPACK = '"$0" mkdir -p "$1" && exec "$0" tar -x -C "$1"'
CHUNK_BYTES = 256 * 1024


def upload(guest: Guest, source: Path, destination: str, *, user: str) -> None:
    """Copy a file or a tree. A destination that ends with / takes a file under its own name.

    Errors: InvalidInput for what is neither file nor directory, can't be read here, or can't be
    written there; the guest's own words are in it.
    """
    try:
        if source.is_dir():
            names = {name: name for name in sorted(os.listdir(source))}  # noqa: PTH208 - names
            _unpack(guest, source, names, destination, user)
        else:
            directory, _, name = destination.rpartition("/")
            if not directory:
                directory = "/" if destination.startswith("/") else "."
            names = {source.name: name or source.name}
            _unpack(guest, source.parent, names, directory, user)
    except PermissionError as error:
        raise InvalidInput(f"{error.filename} can't be read: {error.strerror}") from error


def copy_in(guest: Guest, source: Path, destination: str, *, user: str) -> None:
    """As cp -r: a directory that is there gets the source under its own name."""
    name = source.resolve().name
    if is_directory(guest, destination, user):
        destination = f"{destination.rstrip('/')}/{name}"
    elif destination.endswith("/"):
        raise InvalidInput(f"there is no directory {destination!r} in the sandbox")
    upload(guest, source, destination, user=user)


def is_directory(guest: Guest, path: str, user: str) -> bool:
    """Whether a path of the guest leads to one."""
    try:
        return guest.look(path, user=user).is_directory
    except NotFound:
        return False


def _unpack(
    guest: Guest, parent: Path, names: Mapping[str, str], directory: str, user: str
) -> None:
    """Send entries of `parent` under the names given, to be unpacked in the guest's directory."""
    command = Command(
        argv=(BUSYBOX, "sh", "-c", UNPACK, BUSYBOX, directory), user=user, has_stdin=True
    )
    with guest.start(command) as started:
        sink = io.BufferedWriter(_Sink(started), CHUNK_BYTES)
        with sink, tarfile.open(mode="w|", fileobj=sink) as archive:
            for name, arcname in names.items():
                archive.add(parent / name, arcname=arcname, filter=_checked)
        started.close_stdin()
        said = b""
        for event in started.events():
            if isinstance(event, Output):
                said += event.data
            elif isinstance(event, Exit) and event.code != 0:
                words = said.decode(errors="replace").strip()
                raise InvalidInput(
                    f"nothing could be copied to {directory!r} in the sandbox: {words}",
                    hint=f"it is written as the user {user}",
                )


def _checked(member: tarfile.TarInfo) -> tarfile.TarInfo:
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise InvalidInput(f"{member.name} is neither a file, a directory nor a link")
    member.uid = member.gid = 0  # ignored: the guest's tar runs as the user
    member.uname = member.gname = ""
    return member


class _Sink(io.RawIOBase):
    """What tarfile writes to: the command's stdin, for as long as it takes any."""

    def __init__(self, started: Running) -> None:
        self._started = started
        self._takes_more = True

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        # A tar that ended early has said why; its exit code tells when its events are read.
        sent = bytes(data)
        self._takes_more = self._takes_more and self._started.send_stdin(sent)
        return len(sent)
