"""A guest that exists in memory: files, and a shell that knows a few words.

Commands: yes, echo, printf, cat, pwd, env, whoami, true, false, exit, sleep, kill -9 $$, and
`sh -c` of those with `;`, `&&`, `> file`, `>&2`. cat without a file copies its input to its end.
"""

import asyncio
import posixpath
import shlex
import stat
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from wrennd.core.errors import (
    AlreadyExists,
    CommandNotFound,
    InvalidInput,
    NotFound,
)
from wrennd.gen.hostagent import hostagent_pb as pb

SIGNALS = {"SIGKILL": 137, "SIGTERM": 143, "": 137}
OUT_OF_TIME = 124
AHEAD = 16  # pieces of output, as of the real agent
USERS = {"root": "/root", "user": "/home/user"}


class Files:
    """Paths to content; None is a directory."""

    def __init__(self) -> None:
        self.content: dict[str, bytes | None] = {
            path: None for path in ("/", "/root", "/home", "/home/user", "/tmp", "/etc")
        }
        self.content["/etc/hostname"] = b"fake\n"

    def write(self, path: str, content: bytes) -> None:
        path = clean(path)
        if path in self.content and self.content[path] is None:
            raise InvalidInput(f"{path} is a directory")
        for parent in parents(path):
            if self.content.setdefault(parent, None) is not None:
                raise InvalidInput(f"{parent} is not a directory")
        self.content[path] = content

    def read(self, path: str) -> bytes:
        content = self.content[self.known(path)]
        if content is None:
            raise InvalidInput(f"{path} is a directory")
        return content

    def known(self, path: str) -> str:
        path = clean(path)
        if path not in self.content:
            raise NotFound(f"there is no {path}")
        return path

    def make_directory(self, path: str) -> pb.FileEntry:
        path = clean(path)
        if path in self.content:
            raise AlreadyExists(f"there is {path} already")
        for parent in (*parents(path), path):
            if self.content.setdefault(parent, None) is not None:
                raise InvalidInput(f"{parent} is not a directory")
        return self.entry(path)

    def remove(self, path: str) -> None:
        path = self.known(path)
        for each in [p for p in self.content if p == path or p.startswith(path + "/")]:
            del self.content[each]

    def list(self, path: str, depth: int) -> list[pb.FileEntry]:
        path = self.known(path)
        if self.content[path] is not None:
            raise InvalidInput(f"{path} is not a directory")
        prefix = path.rstrip("/") + "/"
        below = sorted(p for p in self.content if p.startswith(prefix) and p != "/")
        return [self.entry(p) for p in below if p[len(prefix) :].count("/") < (depth or 1)]

    def entry(self, path: str) -> pb.FileEntry:
        path = self.known(path)
        content = self.content[path]
        mode = 0o755 if content is None else 0o644
        kind = stat.S_IFDIR if content is None else stat.S_IFREG
        return pb.FileEntry(
            name=posixpath.basename(path) or "/",
            path=path,
            type="directory" if content is None else "file",
            size=0 if content is None else len(content),
            mode=mode,
            permissions=stat.filemode(kind | mode),
            owner="root",
            group="root",
            modified_unix=1_700_000_000,
        )


def clean(path: str) -> str:
    if not path or "\0" in path:
        raise InvalidInput("this is no path")
    if path == "~" or path.startswith("~/"):
        path = "/root" + path[1:]
    return posixpath.normpath(posixpath.join("/root", path))


def parents(path: str) -> list[str]:
    found: list[str] = []
    while path != "/":
        path = posixpath.dirname(path)
        found.insert(0, path)
    return found


@dataclass(eq=False)
class Process:
    """One that runs, or ran. `output` ends with None; its history is kept for none."""

    pid: int
    tag: str
    spec: pb.CommandSpec
    is_pty: bool = False
    size: tuple[int, int] = (80, 24)
    stdin: "asyncio.Queue[bytes | None]" = field(default_factory=asyncio.Queue)
    followers: "list[asyncio.Queue[pb.ProcessEvent]]" = field(default_factory=list)
    exit_code: int | None = None
    task: "asyncio.Task[None] | None" = None
    kill_code: int = 137

    def emit(self, event: pb.ProcessEvent) -> None:
        for queue in self.followers:
            queue.put_nowait(event)

    def write(self, data: bytes, *, is_error: bool = False) -> None:
        from protobuf import Oneof

        kind = "pty" if self.is_pty else "stderr" if is_error else "stdout"
        if data:
            output = pb.ProcessEvent.Data(output=Oneof(kind, data))
            self.emit(pb.ProcessEvent(event=Oneof("data", output)))


class Guest:
    """One sandbox's files and processes. Used from one event loop."""

    def __init__(self, env: dict[str, str]) -> None:
        self.files = Files()
        self.env = env
        self.processes: dict[int, Process] = {}
        self._next_pid = 100

    def start(
        self, spec: pb.CommandSpec, *, tag: str = "", is_pty: bool = False, has_stdin: bool = True
    ) -> tuple[Process, "asyncio.Queue[pb.ProcessEvent]"]:
        from protobuf import Oneof

        if not spec.cmd:
            raise InvalidInput("no command was given")
        if (spec.user or "root") not in USERS:
            raise InvalidInput(f"there is no user {spec.user}")
        if spec.cwd and self.files.content.get(clean(spec.cwd), b"") is not None:
            raise InvalidInput(f"there is no directory {spec.cwd}")
        argv = [spec.cmd, *spec.args]
        if posixpath.basename(argv[0]) not in {*WORDS, "sh", "bash"}:
            raise CommandNotFound(f"there is no command {argv[0]}")
        self._next_pid += 1
        process = Process(
            pid=self._next_pid, tag=tag or f"t{self._next_pid}", spec=spec, is_pty=is_pty
        )
        queue: asyncio.Queue[pb.ProcessEvent] = asyncio.Queue()
        process.followers.append(queue)
        self.processes[process.pid] = process
        start = pb.ProcessEvent.Start(pid=process.pid, tag=process.tag)
        process.emit(pb.ProcessEvent(event=Oneof("start", start)))
        if not has_stdin:
            process.stdin.put_nowait(None)
        process.task = asyncio.create_task(self._run(process, argv))
        return process, queue

    def find(self, selector: pb.Selector | None) -> Process:
        chosen = selector.selector if selector is not None else None
        if chosen is None or not chosen.value:
            raise InvalidInput("no process was named")
        for process in self.processes.values():
            if chosen.value == (process.pid if chosen.field == "pid" else process.tag):
                return process
        raise NotFound(f"there is no process {chosen.value}")

    def kill(self, process: Process, signal: str) -> None:
        if signal not in SIGNALS:
            raise InvalidInput(f"{signal} can't be sent")
        process.kill_code = SIGNALS[signal]
        assert process.task is not None
        process.task.cancel()

    def end_late(self, process: Process) -> None:
        """It is out of time."""
        self.kill(process, "SIGKILL")
        process.kill_code = OUT_OF_TIME

    def end(self) -> None:
        for process in list(self.processes.values()):
            self.kill(process, "SIGKILL")

    async def _run(self, process: Process, argv: list[str]) -> None:
        from protobuf import Oneof

        try:
            code = await Shell(self, process).run(argv)
        except asyncio.CancelledError:
            code = process.kill_code
        process.exit_code = code
        self.processes.pop(process.pid, None)
        end = pb.ProcessEvent.End(exit_code=code)
        process.emit(pb.ProcessEvent(event=Oneof("end", end)))


class Exited(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class Shell:
    """One command line."""

    guest: Guest
    process: Process

    async def run(self, argv: list[str]) -> int:
        name = posixpath.basename(argv[0])
        try:
            if name in ("sh", "bash"):
                return await (self._line(argv[2]) if argv[1:2] == ["-c"] else self._interact())
            return await self._word([name, *argv[1:]], None)
        except Exited as exited:
            return exited.code

    async def _interact(self) -> int:
        code = 0
        async for line in self._lines():
            code = await self._line(line)
        return code

    async def _lines(self) -> AsyncIterator[str]:
        rest = b""
        while (data := await self.process.stdin.get()) is not None:
            if self.process.is_pty:
                self.process.write(data)
            rest += data.replace(b"\r", b"\n")
            *lines, rest = rest.split(b"\n")
            for line in lines:
                yield line.decode()

    async def _line(self, line: str) -> int:
        code = 0
        for part in line.replace("&&", ";").split(";"):
            words = shlex.split(part)
            if words:
                code = await self._redirected(words)
        return code

    async def _redirected(self, words: list[str]) -> int:
        target: str | None = None
        plain: list[str] = []
        for word in words:
            if word in (">", ">&2") or word.startswith(">"):
                target = word[1:] or ">"
            elif target == ">":
                target = word
            else:
                plain.append(word)
        if plain[0] == "exit":
            raise Exited(int(plain[1]) if plain[1:] else 0)
        return await self._word(plain, target)

    async def _word(self, words: list[str], target: str | None) -> int:
        name, *args = words
        if name in WRITERS:
            return self._out(WRITERS[name](self, args), target)
        match name:
            case "cat":
                return await self._cat(args, target)
            case "yes":
                await self._flood()
            case "sleep":
                await asyncio.sleep(float(args[0]))
                return 0
            case "true" | "false":
                return int(name == "false")
            case "exit":
                return int(args[0]) if args else 0
            case "kill":  # of itself: `kill -9 $$`
                return 137
        self.process.write(f"sh: {name}: not found\n".encode(), is_error=True)
        return 127

    def _env(self, _args: list[str]) -> bytes:
        user = self.process.spec.user or "root"
        login = {"USER": user, "HOME": USERS[user]}
        env = {**login, **self.guest.env, **self.process.spec.envs}
        return "".join(f"{name}={value}\n" for name, value in env.items()).encode()

    def _pwd(self, _args: list[str]) -> bytes:
        return (self.process.spec.cwd or "/root").encode() + b"\n"

    def _whoami(self, _args: list[str]) -> bytes:
        return (self.process.spec.user or "root").encode() + b"\n"

    def _size(self, _args: list[str]) -> bytes:
        cols, rows = self.process.size
        return f"{rows} {cols}\n".encode()

    def _echo(self, args: list[str]) -> bytes:
        return " ".join(args).encode() + b"\n"

    def _printf(self, args: list[str]) -> bytes:
        return args[0].encode().decode("unicode_escape").encode("latin-1")

    async def _cat(self, args: list[str], target: str | None) -> int:
        for path in args:
            try:
                self._out(self.guest.files.read(path), target)
            except (NotFound, InvalidInput) as error:
                self.process.write(f"cat: {error}\n".encode(), is_error=True)
                return 1
        if not args:
            while (data := await self.process.stdin.get()) is not None:
                self._out(data, target)
        return 0

    async def _flood(self) -> None:
        """For ever, and no faster than it is read."""
        while True:
            if all(queue.qsize() < AHEAD for queue in self.process.followers):
                self.process.write(b"y\n" * (16 << 10))
            await asyncio.sleep(0.001)

    def _out(self, data: bytes, target: str | None) -> int:
        if target is None or target.startswith("&"):
            self.process.write(data, is_error=target == "&2")
        else:
            self.guest.files.write(target, data)
        return 0


WRITERS = {
    "echo": Shell._echo,
    "printf": Shell._printf,
    "pwd": Shell._pwd,
    "env": Shell._env,
    "whoami": Shell._whoami,
    "size": Shell._size,
}
WORDS = frozenset(WRITERS) | {"yes", "cat", "sleep", "true", "false", "exit", "kill"}


def now_ms() -> int:
    return time.time_ns() // 1_000_000
