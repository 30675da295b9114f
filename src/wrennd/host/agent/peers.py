"""Who may connect: a listening Unix socket, and a protocol that looks who is at its other end."""

import asyncio
import contextlib
import errno
import grp
import logging
import os
import socket
import stat
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from uvicorn.protocols.http.h11_impl import H11Protocol

from wrennd.core.errors import AlreadyExists, InvalidInput

log = logging.getLogger(__name__)
GROUP = "wrenn"
BACKLOG = 256
_UCRED = struct.Struct("3i")  # pid, uid, gid (unix(7))
MAX_PATH = 107  # sun_path, with its NUL


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket at that path, 0660, of group `wrenn` if there is one; gone behind the block.

    What a dead server left there is replaced. Errors: AlreadyExists when something lives there, or
    it is no socket; InvalidInput for a path that is too long.
    """
    # Under another name until its mode is right: nobody connects before.
    draft = path.with_name(f".{path.name}.tmp")
    if len(os.fsencode(draft)) > MAX_PATH:
        most = MAX_PATH - len(".tmp") - 1
        raise InvalidInput(f"{path} is too long for a socket: {most} bytes are the limit")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _remove_dead(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        draft.unlink(missing_ok=True)
        listener.bind(os.fspath(draft))
        try:
            with contextlib.suppress(KeyError):  # there is no such group: root's own
                os.chown(draft, 0, grp.getgrnam(GROUP).gr_gid)
            draft.chmod(0o660)
            listener.listen(BACKLOG)
            listener.setblocking(False)
            draft.rename(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        inode = path.stat().st_ino
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == inode:  # else it is another's by now
                    path.unlink()


def _remove_dead(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise AlreadyExists(f"{path} is there, and it is no socket", hint="give another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        error = probe.connect_ex(os.fspath(path))
    if error not in (errno.ECONNREFUSED, errno.ENOENT):
        raise AlreadyExists(
            f"something listens on {path} already", hint="stop it, or give another --socket"
        )
    path.unlink(missing_ok=True)


def peer_uid(sock: socket.socket) -> int:
    """The uid of the process that connected (SO_PEERCRED)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid: int = _UCRED.unpack(raw)[1]
    return uid


def protocol_for(uids: Collection[int]) -> type[H11Protocol]:
    """uvicorn's protocol for those uids: anybody else's connection is closed before it is read."""

    class Checked(H11Protocol):
        _is_refused = False

        def connection_made(  # type: ignore[override]
            self, transport: asyncio.Transport
        ) -> None:
            uid = peer_uid(transport.get_extra_info("socket"))
            if uid in uids:
                super().connection_made(transport)
                return
            self._is_refused = True
            log.warning("a connection was refused", extra={"uid": uid})
            transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            if not self._is_refused:
                super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if not self._is_refused:
                super().data_received(data)

    return Checked
