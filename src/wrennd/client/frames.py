"""The frames of a command's WebSocket, as docs/api.md has them: encode and decode. Pure."""

import base64
import json
import urllib.parse
from dataclasses import dataclass
from typing import Any

from wrennd.core.errors import Error
from wrennd.core.model import Command, TerminalSize
from wrennd.core.sandboxes import Exit, Output


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a session begins: where, and with which first frame."""

    path: str
    first: str
    is_terminal: bool


@dataclass(frozen=True, kw_only=True)
class Begun:
    """The command runs. tag: by which a terminal is joined again."""

    pid: int
    tag: str = ""


@dataclass(frozen=True)
class Ping:
    """To be answered with `pong`."""


def opening(sandbox_id: str, command: Command) -> Opening:
    """A command with a terminal, or with pipes; every byte as it was written."""
    if command.terminal is None:
        below, how = "exec/stream", {"stdin": command.has_stdin, "encoding": "base64"}
    else:
        size = {"cols": command.terminal.cols, "rows": command.terminal.rows}
        below, how = "pty", {**size, "encoding": "binary"}
    return Opening(
        path=_path(sandbox_id, below),
        first=json.dumps(_described(command) | how),
        is_terminal=command.terminal is not None,
    )


def pty_join(sandbox_id: str, tag: str) -> Opening:
    first = {"type": "connect", "tag": tag, "encoding": "binary"}
    return Opening(path=_path(sandbox_id, "pty"), first=json.dumps(first), is_terminal=True)


def _described(command: Command) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "start",
        "cmd": command.argv[0],
        "args": list(command.argv[1:]),
        "envs": dict(command.env),
        "user": command.user,
    }
    return found | {"cwd": command.cwd} if command.cwd else found


def _path(sandbox_id: str, below: str) -> str:
    return f"/v1/sandboxes/{urllib.parse.quote(sandbox_id, safe='')}/{below}"


def stdin(data: bytes, *, is_terminal: bool) -> str | bytes:
    if is_terminal:
        return data
    return json.dumps({"type": "stdin", "data": base64.b64encode(data).decode()})


STDIN_CLOSE = json.dumps({"type": "stdin_close"})
PONG = json.dumps({"type": "pong"})


def kill(*, is_terminal: bool) -> str:
    return json.dumps({"type": "kill" if is_terminal else "stop"})


def resize(size: TerminalSize) -> str:
    return json.dumps({"type": "resize", "cols": size.cols, "rows": size.rows})


def read(frame: str | bytes) -> Output | Exit | Begun | Ping | None:
    """None: nothing that we know. Errors: what the server says went wrong."""
    if isinstance(frame, bytes):
        return Output("stdout", frame)
    try:
        return _read(json.loads(frame))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Error(f"the server sent a frame that is none: {frame[:80]!r}") from error


def _read(said: dict[str, Any]) -> Output | Exit | Begun | Ping | None:
    match said["type"]:
        case "stdout" | "stderr" as stream:
            return Output("stderr" if stream == "stderr" else "stdout", _bytes(said))
        case "output":
            return Output("stdout", _bytes(said))
        case "start" | "started":
            return Begun(pid=int(said["pid"]), tag=str(said.get("tag", "")))
        case "exit":
            return Exit(int(said["exit_code"]))
        case "error":
            raise Error.from_wire(
                {
                    "code": str(said.get("code", "internal")),
                    "message": str(said.get("data") or said.get("message")),
                    "hint": str(said.get("hint") or ""),
                }
            )
        case "ping":
            return Ping()
    return None


def _bytes(said: dict[str, Any]) -> bytes:
    return base64.b64decode(said["data"], validate=True)
