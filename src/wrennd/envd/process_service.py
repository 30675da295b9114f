"""The RPC service `process.Process`: messages on one side, processes on the other."""

from __future__ import annotations

import os

from wrennd.envd import connect, fields, spawn, stdio
from wrennd.envd.auth import user_name
from wrennd.envd.connect import RpcError
from wrennd.envd.feed import Feed, InputStream, feed_input
from wrennd.envd.init import check_env
from wrennd.envd.rpc import Service
from wrennd.envd.users import groups_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.fields import Message
    from wrennd.envd.groups import Groups
    from wrennd.envd.init import Settings
    from wrennd.envd.jsontext import Json
    from wrennd.envd.loop import Loop
    from wrennd.envd.process import Process
    from wrennd.envd.processes import Processes
    from wrennd.envd.rpc import Call, Stream
    from wrennd.envd.users import Account

SIGNALS = {"SIGNAL_SIGKILL": 9, "SIGNAL_SIGTERM": 15}
DEFAULT_COLUMNS, DEFAULT_ROWS = 80, 24


class ProcessService:
    """The methods. Each takes a decoded message; RpcError is the answer to a bad one."""

    def __init__(
        self, loop: Loop, processes: Processes, settings: Settings, groups: Groups
    ) -> None:
        self._loop = loop
        self._processes = processes
        self._settings = settings
        self._groups = groups

    def service(self) -> Service:
        return Service(
            unary={
                "List": self.list,
                "Update": self.update,
                "SendInput": self.send_input,
                "SendSignal": self.send_signal,
                "CloseStdin": self.close_stdin,
            },
            server_stream={"Start": self.start, "Connect": self.connect},
            client_stream={"StreamInput": self.stream_input},
        )

    def start(self, stream: Stream, message: Message) -> None:
        limit_s = connect.timeout_s(stream.headers)
        account = self._settings.account(user_name(stream.headers))
        launch = self._launch(fields.message(message, "process") or {}, account)
        tag = fields.text(message, "tag")
        launch.cgroup_procs = self._groups.procs(has_terminal=is_terminal(message))
        streams = open_streams(message)
        feed = Feed(self._loop, stream)
        feed.process = self._processes.start(launch, streams, feed, tag=tag, limit_s=limit_s)

    def connect(self, stream: Stream, message: Message) -> None:
        feed = Feed(self._loop, stream)
        feed.process = self._select(message)
        feed.process.subscribe(feed)

    def list(self, call: Call, _message: Message) -> None:
        call.reply({"processes": [describe(one) for one in self._processes.running]})

    def update(self, call: Call, message: Message) -> None:
        process = self._running(message)
        if process.terminal_fd < 0:
            raise RpcError("failed_precondition", f"process {process.pid} has no terminal")
        pty = fields.message(message, "pty")
        if pty is not None:
            stdio.resize(process.terminal_fd, *terminal_size(pty))
        call.reply({})

    def send_input(self, call: Call, message: Message) -> None:
        process = self._running(message)

        def done(error: RpcError | None) -> None:
            if error is None:
                call.reply({})
            else:
                call.fail(error)

        feed_input(process, fields.message(message, "input") or {}, done)

    def stream_input(self, call: Call) -> InputStream:
        return InputStream(self._running, call)

    def send_signal(self, call: Call, message: Message) -> None:
        number = signal_number(fields.get(message, "signal"))
        self._running(message).signal(number)
        call.reply({})

    def close_stdin(self, call: Call, message: Message) -> None:
        process = self._running(message)
        if process.terminal_fd >= 0:
            raise RpcError(
                "failed_precondition", f"process {process.pid} has a terminal: send it an EOT"
            )
        if process.input is None:
            call.reply({})
        else:
            process.input.close_after_writes(lambda _error: call.reply({}))

    def _select(self, message: Message) -> Process:
        selector = fields.message(message, "process") or {}
        pid = fields.u32(selector, "pid")
        if pid is not None:
            return self._processes.by_pid(pid)
        tag = fields.text(selector, "tag")
        if tag is not None:
            return self._processes.by_tag(tag)
        raise RpcError("invalid_argument", "the process must be selected by pid or tag")

    def _running(self, message: Message) -> Process:
        process = self._select(message)
        if process.end is not None:
            raise RpcError("not_found", f"process with pid {process.pid} has ended")
        return process

    def _launch(self, config: Message, account: Account) -> spawn.Launch:
        command = fields.text(config, "cmd")
        if not command:
            raise RpcError("invalid_argument", "process.cmd is empty")
        own = fields.text_map(config, "envs")
        check_env(own)
        env = {
            "PATH": os.environ.get("PATH", spawn.DEFAULT_PATH),
            "HOME": account.home,
            "USER": account.name,
            "LOGNAME": account.name,
        }
        env.update(self._settings.env)
        env.update(own)
        launch = spawn.Launch(command, fields.texts(config, "args"), env)
        launch.own_env = own
        cwd = fields.text(config, "cwd") or self._settings.workdir
        spawn.place(launch, cwd, account)
        launch.groups = groups_of(account)
        return launch


def signal_number(value: Json) -> int:
    """Enums come by name or by number. Errors: RpcError."""
    for name, number in SIGNALS.items():
        if value in (name, number):
            return number
    raise RpcError("invalid_argument", f"signal {value!r} is neither SIGKILL nor SIGTERM")


def is_terminal(message: Message) -> bool:
    """Errors: RpcError."""
    return fields.message(message, "pty") is not None


def open_streams(message: Message) -> stdio.Stdio:
    """Errors: RpcError resource_exhausted when descriptors run out."""
    pty = fields.message(message, "pty")
    try:
        if pty is not None:
            return stdio.terminal(*terminal_size(pty))
        return stdio.pipes(has_stdin=fields.boolean(message, "stdin") is not False)
    except OSError as error:
        raise RpcError("resource_exhausted", f"no process can be started: {error}") from None


def terminal_size(pty: Message) -> tuple[int, int]:
    """Columns and rows; whatever a client says is taken, nothing said is 80 by 24."""
    size = fields.message(pty, "size") or {}
    columns, rows = fields.u32(size, "cols"), fields.u32(size, "rows")
    return columns or DEFAULT_COLUMNS, rows or DEFAULT_ROWS


def describe(process: Process) -> Message:
    launch = process.launch
    config: Message = {
        "cmd": launch.command,
        "args": launch.arguments,
        "envs": launch.own_env,
        "cwd": launch.cwd,
    }
    info: Message = {"config": config, "pid": process.pid}
    return info if process.tag is None else info | {"tag": process.tag}
