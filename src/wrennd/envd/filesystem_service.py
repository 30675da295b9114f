"""The RPC service `filesystem.Filesystem`: the tree as a user sees it. Watches are in `watches`."""

from __future__ import annotations

import os
import stat

from wrennd.envd import entries, fields, jsontext, tree
from wrennd.envd.auth import user_name
from wrennd.envd.connect import UNARY_TYPE, RpcError
from wrennd.envd.jobs import WAIT, Job
from wrennd.envd.paths import printable, resolve, rpc_error
from wrennd.envd.rpc import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wrennd.envd.fields import Message
    from wrennd.envd.init import Settings
    from wrennd.envd.jobs import Steps
    from wrennd.envd.loop import Loop
    from wrennd.envd.rpc import Call, Stream
    from wrennd.envd.users import Account
    from wrennd.envd.watches import Watches

# As much as fits into one write of a reply.
PIECE_BYTES = 32 << 10


class FilesystemService:
    """The methods. Everything is done with envd's rights; what is made belongs to the user."""

    def __init__(self, loop: Loop, settings: Settings) -> None:
        self._loop = loop
        self._settings = settings
        self._made_watches: Watches | None = None

    @property
    def _watches(self) -> Watches:
        """Made with the first watch, which few guests ever see."""
        if self._made_watches is None:
            from wrennd.envd.watches import Watches

            self._made_watches = Watches(self._loop)
        return self._made_watches

    def service(self) -> Service:
        return Service(
            unary={
                "Stat": self.stat,
                "ListDir": self.list_dir,
                "MakeDir": self.make_dir,
                "Move": self.move,
                "Remove": self.remove,
                "CreateWatcher": self.create_watcher,
                "GetWatcherEvents": self.get_watcher_events,
                "RemoveWatcher": self.remove_watcher,
            },
            server_stream={"WatchDir": self.watch_dir},
            client_stream={},
        )

    def stat(self, call: Call, message: Message) -> None:
        path, _ = self._path(call, message)
        reply_entry(call, path)

    def list_dir(self, call: Call, message: Message) -> None:
        path, _ = self._path(call, message)
        depth = fields.u32(message, "depth") or 1
        resolved = directory(path)
        try:
            names = list_names(resolved, depth)
        except OSError as error:
            raise rpc_error(error, path) from None
        run(self._loop, call, send_entries(call, names, resolved, path))

    def make_dir(self, call: Call, message: Message) -> None:
        path, account = self._path(call, message)
        try:
            tree.make_directory(path, account)
        except FileExistsError:
            raise RpcError("already_exists", f"directory '{path}' already exists") from None
        except OSError as error:
            raise rpc_error(error, path) from None
        reply_entry(call, path)

    def move(self, call: Call, message: Message) -> None:
        source, account = self._path(call, message, "source")
        destination, _ = self._path(call, message, "destination")
        check_named(message, "source", source)
        check_named(message, "destination", destination)
        try:
            tree.move(source, destination, account)
        except OSError as error:
            raise rpc_error(error, source) from None
        reply_entry(call, destination)

    def remove(self, call: Call, message: Message) -> None:
        path, _ = self._path(call, message)
        check_named(message, "path", path)
        run(self._loop, call, remove_steps(call, path))

    def watch_dir(self, stream: Stream, message: Message) -> None:
        self._watches.stream(stream, self._watched(stream, message), message)

    def create_watcher(self, call: Call, message: Message) -> None:
        path = self._watched(call, message)
        call.reply({"watcherId": self._watches.create(path, message)})

    def get_watcher_events(self, call: Call, message: Message) -> None:
        events = self._watches.events(fields.text(message, "watcher_id") or "")
        call.reply_text(b'{"events":[%b]}' % b",".join(events))

    def remove_watcher(self, call: Call, message: Message) -> None:
        self._watches.remove(fields.text(message, "watcher_id") or "")
        call.reply({})

    def _watched(self, call: Call | Stream, message: Message) -> str:
        """The directory to watch. Errors: RpcError."""
        path, _ = self._path(call, message)
        directory(path)
        return path

    def _path(
        self, call: Call | Stream, message: Message, name: str = "path"
    ) -> tuple[str, Account]:
        """The absolute path in a field, and the user. Errors: RpcError."""
        account = self._settings.account(user_name(call.headers))
        given = fields.text(message, name) or ""
        return resolve(given, account, self._settings.workdir), account


def check_named(message: Message, name: str, path: str) -> None:
    """A forgotten path means the home, which nobody wants to lose by that; nor the root."""
    if not fields.text(message, name) or path == "/":
        raise RpcError("invalid_argument", f"{name} must name something below /")


def directory(path: str) -> str:
    """Where a directory really is, symlinks followed. Errors: RpcError."""
    try:
        resolved = os.path.realpath(path, strict=True)
        is_directory = stat.S_ISDIR(os.stat(resolved).st_mode)
    except OSError as error:
        raise rpc_error(error, path) from None
    if not is_directory:
        raise RpcError("invalid_argument", f"path '{printable(path)}' is not a directory")
    return resolved


def run(loop: Loop, call: Call, steps: Steps) -> None:
    """Do work for a caller, no faster than it reads, and only while it is there."""
    job = Job(loop, steps)
    call.on_drained = job.resume
    call.on_closed = job.close


def remove_steps(call: Call, path: str) -> Steps:
    try:
        yield from tree.remove(path)
    except OSError as error:
        call.fail(rpc_error(error, path))
    else:
        call.reply({})


def list_names(resolved: str, depth: int) -> Iterator[str]:
    """The names below a directory that could be opened. Errors: OSError."""
    names = tree.walk(resolved, depth)
    first = next(names, None)

    def rest() -> Iterator[str]:
        if first is not None:
            yield first
            yield from names

    return rest()


def send_entries(call: Call, names: Iterator[str], resolved: str, shown: str) -> Steps:
    """The reply of ListDir, sent as it is made: a tree may have a million names."""
    owners = entries.Names()
    shown = shown.rstrip("/")
    exchange = call.exchange
    piece, size, comma = [b'{"entries":['], 0, b""
    for name in names:
        try:
            found = entries.entry(f"{resolved}/{name}", owners, f"{shown}/{name}")
        except OSError:
            # Gone since its directory was read.
            continue
        text = jsontext.encode(found).encode()
        piece.append(comma + text)
        size += len(text)
        comma = b","
        if size >= PIECE_BYTES:
            if not exchange.began:
                exchange.begin(200, [("Content-Type", UNARY_TYPE)])
            exchange.write(b"".join(piece))
            piece, size = [], 0
        yield WAIT if exchange.is_full else None
    piece.append(b"]}")
    if exchange.began:
        exchange.write(b"".join(piece))
        exchange.finish()
    else:
        exchange.reply(200, [("Content-Type", UNARY_TYPE)], b"".join(piece))


def reply_entry(call: Call, path: str) -> None:
    """Errors: RpcError."""
    try:
        call.reply({"entry": entries.entry(path, entries.Names())})
    except NotADirectoryError:
        # Something above it is a file: to whoever asks whether it exists, it doesn't.
        raise RpcError("not_found", f"path '{printable(path)}' does not exist") from None
    except OSError as error:
        raise rpc_error(error, path) from None
