"""The file tree of one guest, as its agent shows it: look, make, move, remove, fetch.

Synchronous, like the client that it belongs to; each call has a connection of its own, and CALL_S
for its answer. Every method acts for `user`, or the guest's default user. Errors of all: NotFound,
AlreadyExists and InvalidInput (about path or user), NoCapacity, GuestFailed, VmmFailed,
DeadlineExceeded.
"""

import base64
import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urlencode

from wrennd.core.deadline import Deadline
from wrennd.core.errors import GuestFailed
from wrennd.host import envd_wire
from wrennd.host.envd_wire import READ_BYTES, Peer, Reply, Wire, check_reply, understanding

if TYPE_CHECKING:
    from protobuf.wkt import Timestamp

    from wrennd.gen.envd.filesystem_connect import FilesystemClientSync
    from wrennd.gen.envd.filesystem_pb import EntryInfo
    from wrennd.host.envd_rpc import Call

CALL_S = 30.0
T = TypeVar("T")


class Kind(StrEnum):
    """What a name leads to; OTHER: a device, FIFO or socket, or a symlink that leads nowhere."""

    FILE = "file"
    DIRECTORY = "directory"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name. Of a symlink `kind` and `mode` are its target's.

    symlink_target: where it leads in the end; None for what is no symlink.
    """

    path: str
    name: str
    kind: Kind
    size: int
    mode: int
    owner: str
    group: str
    modified: datetime.datetime
    symlink_target: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class Sink(Protocol):
    """What a download is written to."""

    def write(self, data: bytes, /) -> int: ...


class GuestFiles:
    """The tree of one guest. `call` makes a connection for one RPC."""

    def __init__(self, peer: Peer, headers: dict[str, str], call: "Callable[[], Call]") -> None:
        self._peer = peer
        self._headers = headers
        self._call = call

    def stat(self, path: str, *, user: str = "") -> Entry:
        from wrennd.gen.envd.filesystem_pb import StatRequest

        def ask(tree: "FilesystemClientSync", headers: dict[str, str]) -> "EntryInfo | None":
            return tree.stat(StatRequest(path=path), headers=headers).entry

        return _entry(self._ask(user, ask))

    def list(self, path: str, *, depth: int = 1, user: str = "") -> list[Entry]:
        """Names below a directory: depth first, each directory's in the order of their bytes."""
        from wrennd.gen.envd.filesystem_pb import ListDirRequest

        def ask(tree: "FilesystemClientSync", headers: dict[str, str]) -> "list[EntryInfo]":
            request = ListDirRequest(path=path, depth=depth)
            return list(tree.list_dir(request, headers=headers).entries)

        return [_entry(found) for found in self._ask(user, ask)]

    def make_directory(self, path: str, *, user: str = "") -> Entry:
        """With missing parents. Errors: AlreadyExists when it is there."""
        from wrennd.gen.envd.filesystem_pb import MakeDirRequest

        def ask(tree: "FilesystemClientSync", headers: dict[str, str]) -> "EntryInfo | None":
            return tree.make_dir(MakeDirRequest(path=path), headers=headers).entry

        return _entry(self._ask(user, ask))

    def move(self, source: str, destination: str, *, user: str = "") -> Entry:
        """With missing parents of the destination made."""
        from wrennd.gen.envd.filesystem_pb import MoveRequest

        def ask(tree: "FilesystemClientSync", headers: dict[str, str]) -> "EntryInfo | None":
            request = MoveRequest(source=source, destination=destination)
            return tree.move(request, headers=headers).entry

        return _entry(self._ask(user, ask))

    def remove(self, path: str, *, user: str = "") -> None:
        """With all that is below it; what isn't there needs no removal."""
        from wrennd.gen.envd.filesystem_pb import RemoveRequest

        def ask(tree: "FilesystemClientSync", headers: dict[str, str]) -> None:
            tree.remove(RemoveRequest(path=path), headers=headers)

        self._ask(user, ask)

    def download(
        self,
        path: str,
        target: Sink,
        *,
        user: str = "",
        limit_s: float = 3600.0,
        on_open: Callable[[Callable[[], None]], None] | None = None,
    ) -> int:
        """Write a guest's file to `target`, which is the caller's; returns its bytes.

        on_open: told what ends the download, from any thread.
        """
        query = {"path": path} | ({"username": user} if user else {})
        deadline = Deadline.after(limit_s)
        sock = envd_wire.dial(self._peer, Deadline.after(CALL_S))
        wire = Wire(sock, self._peer, deadline)
        if on_open is not None:
            on_open(wire.cancel)
        count = 0
        try:
            with envd_wire.exchange(
                wire, "GET", f"/files?{urlencode(query)}", self._headers
            ) as response:
                if response.status >= 300:
                    reply = Reply(status=response.status, body=envd_wire.read_whole(response))
                    check_reply(reply, f"read {path}")
                while data := response.read(READ_BYTES):
                    count += target.write(data)
        except ConnectionError as error:
            raise GuestFailed(f"downloading {path} broke off: {error}") from error
        return count

    def _ask(self, user: str, ask: "Callable[[FilesystemClientSync, dict[str, str]], T]") -> T:
        from wrennd.host.envd_rpc import translated

        headers = {}
        if user:
            account = base64.b64encode(f"{user}:".encode()).decode()
            headers["authorization"] = f"Basic {account}"
        with translated():
            return ask(self._call().filesystem, headers)


def _entry(found: "EntryInfo | None") -> Entry:
    if found is None or found.modified_time is None:
        raise GuestFailed("the guest agent's answer has no entry")
    with understanding("entry"):
        return _understood(found, found.modified_time)


def _understood(found: "EntryInfo", moment: "Timestamp") -> Entry:
    return Entry(
        path=found.path,
        name=found.name,
        kind=_kind(found),
        size=found.size,
        mode=found.mode,
        owner=found.owner,
        group=found.group,
        modified=datetime.datetime.fromtimestamp(moment.seconds, datetime.UTC)
        + datetime.timedelta(microseconds=moment.nanos // 1000),
        symlink_target=found.symlink_target if found.is_symlink else None,
        metadata=dict(found.metadata),
    )


def _kind(found: "EntryInfo") -> Kind:
    from wrennd.gen.envd.filesystem_pb import FileType

    kinds = {FileType.FILE: Kind.FILE, FileType.DIRECTORY: Kind.DIRECTORY}
    return kinds.get(found.type, Kind.OTHER)
