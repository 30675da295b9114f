"""Every watch of the file tree, in both styles: streamed to its client, or kept until fetched.

What waits for a client is bounded: a stream that isn't read stops the reading of its events, and
the kernel's queue overflows in the end; what is kept has MAX_KEPT_BYTES. Either way the client is
told `data_loss`, once, instead of being left with a tale that has holes.
"""

from __future__ import annotations

import errno
import os

from wrennd.envd import entries, fields, jsontext
from wrennd.envd.connect import RpcError
from wrennd.envd.feed import Heartbeat
from wrennd.envd.loop import READ
from wrennd.envd.mounts import network_filesystem
from wrennd.envd.paths import printable, rpc_error
from wrennd.envd.watcher import CHMOD, CREATE, WRITE, Watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.fields import Message
    from wrennd.envd.loop import Loop
    from wrennd.envd.rpc import Stream
    from wrennd.envd.watcher import Change

# The kernel grants 128 inotify instances to root; some are left to the guest's own programs.
MAX_WATCHERS = 100
MAX_KEPT_BYTES = 1 << 20
# A process that never stops making events must not keep a fetch from being answered.
READS_A_FETCH = 64
ID_BYTES = 8
START = b'{"start":{}}'
KEEPALIVE = b'{"keepalive":{}}'
_WITH_ENTRY = (CREATE, WRITE, CHMOD)


class Watches:
    """Owns every watcher."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._kept: dict[str, Kept] = {}
        self._streams: set[Streamed] = set()

    def stream(self, stream: Stream, path: str, message: Message) -> None:
        """Errors: RpcError."""
        with_entry = wants_entries(message)
        streamed = Streamed(self._loop, stream, self._watcher(path, message), self._streams)
        streamed.with_entry = with_entry

    def create(self, path: str, message: Message) -> str:
        """A watch whose events are kept; returns its id. Errors: RpcError."""
        with_entry = wants_entries(message)
        watcher_id = "w" + os.urandom(ID_BYTES).hex()
        watcher = self._watcher(path, message)
        self._kept[watcher_id] = Kept(self._loop, watcher, with_entry=with_entry)
        return watcher_id

    def events(self, watcher_id: str) -> list[bytes]:
        """What happened since the last time, up to this moment. Errors: RpcError."""
        return self._find(watcher_id).fetch()

    def remove(self, watcher_id: str) -> None:
        """Errors: RpcError."""
        self._find(watcher_id).close()
        del self._kept[watcher_id]

    def _find(self, watcher_id: str) -> Kept:
        kept = self._kept.get(watcher_id)
        if kept is None:
            raise RpcError("not_found", f"watcher with id {watcher_id!r} not found")
        return kept

    def _watcher(self, path: str, message: Message) -> Watcher:
        recursive = fields.boolean(message, "recursive") is True
        if len(self._kept) + len(self._streams) >= MAX_WATCHERS:
            raise RpcError("resource_exhausted", f"there are {MAX_WATCHERS} watchers already")
        try:
            kind = network_filesystem(path)
            if kind and fields.boolean(message, "allow_network_mounts") is not True:
                raise RpcError(
                    "invalid_argument",
                    f"path '{printable(path)}' is on a network filesystem ({kind}), which can't be"
                    " watched reliably; allowNetworkMounts watches it all the same",
                )
            return Watcher(path, recursive=recursive)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                text = f"the kernel grants no more watches for '{printable(path)}'"
                raise RpcError("resource_exhausted", text) from None
            raise rpc_error(error, path) from None


def wants_entries(message: Message) -> bool:
    """Errors: RpcError."""
    return fields.boolean(message, "include_entry") is True


def encode(watcher: Watcher, change: Change, names: entries.Names | None) -> bytes:
    """A FilesystemEvent; with the entry if `names` is given and it can still be had."""
    name, kind = change
    event: Message = {"name": printable(name), "type": kind}
    if names is not None and kind in _WITH_ENTRY:
        path = watcher.path if name == "." else f"{watcher.path.rstrip('/')}/{name}"
        try:
            event["entry"] = entries.entry(path, names)
        except OSError:
            # Gone again: the event is true all the same.
            pass
    return jsontext.encode(event).encode()


def lost(watcher: Watcher) -> RpcError:
    watcher.is_lossy = False
    text = f"events of '{printable(watcher.path)}' were lost: there were too many at once"
    return RpcError("data_loss", text)


class Kept:
    """Events that wait to be fetched."""

    def __init__(self, loop: Loop, watcher: Watcher, *, with_entry: bool) -> None:
        self._loop = loop
        self._watcher = watcher
        self._with_entry = with_entry
        self._events: list[bytes] = []
        self._bytes = 0
        loop.watch(watcher.fd, READ, self._ready)

    def fetch(self) -> list[bytes]:
        """Errors: RpcError data_loss."""
        for _ in range(READS_A_FETCH):
            if not self._read():
                break
        events, self._events, self._bytes = self._events, [], 0
        if self._watcher.is_lossy:
            raise lost(self._watcher)
        return events

    def close(self) -> None:
        self._loop.unwatch(self._watcher.fd)
        self._watcher.close()

    def _ready(self, _events: int) -> None:
        if self._watcher.fd >= 0:
            self._read()

    def _read(self) -> bool:
        """Returns whether there was anything."""
        changes = self._watcher.read()
        if changes is None:
            return False
        names = entries.Names() if self._with_entry else None
        for change in changes:
            if self._bytes > MAX_KEPT_BYTES:
                self._watcher.is_lossy = True
            if self._watcher.is_lossy:
                self._events, self._bytes = [], 0
                break
            event = encode(self._watcher, change, names)
            self._events.append(event)
            self._bytes += len(event)
        return True


class Streamed:
    """Events that are sent as they come, no faster than the client reads."""

    def __init__(
        self, loop: Loop, stream: Stream, watcher: Watcher, streams: set[Streamed]
    ) -> None:
        self.with_entry = False
        self._loop = loop
        self._stream = stream
        self._watcher = watcher
        self._streams = streams
        self._heartbeat = Heartbeat(loop, stream, KEEPALIVE)
        streams.add(self)
        stream.on_closed = self._close
        stream.on_drained = self._resume
        self._heartbeat.send(START)
        self._resume()

    def _close(self) -> None:
        self._streams.discard(self)
        self._heartbeat.stop()
        if self._watcher.fd >= 0:
            self._loop.unwatch(self._watcher.fd)
            self._watcher.close()

    def _resume(self) -> None:
        if self._watcher.fd >= 0:
            self._loop.watch(self._watcher.fd, READ, self._ready)

    def _ready(self, _events: int) -> None:
        if self._watcher.fd < 0:
            return
        names = entries.Names() if self.with_entry else None
        for change in self._watcher.read() or ():
            event = encode(self._watcher, change, names)
            self._heartbeat.send(b'{"filesystem":%b}' % event)
        if self._watcher.is_lossy:
            self._close()
            self._stream.end(lost(self._watcher))
        elif self._stream.is_full:
            self._loop.unwatch(self._watcher.fd)
