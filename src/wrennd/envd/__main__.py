"""envd's command line: set up the agent, say that it listens, serve until killed."""

from __future__ import annotations

import os
import sys

from wrennd.envd import VERSION
from wrennd.envd.auth import Access
from wrennd.envd.clock import Clock
from wrennd.envd.endpoints import Endpoints
from wrennd.envd.gate import Gate
from wrennd.envd.groups import Groups
from wrennd.envd.init import Guest, Settings
from wrennd.envd.loop import Loop
from wrennd.envd.power import INIT_PID, PowerButton, signal_init
from wrennd.envd.process_service import ProcessService
from wrennd.envd.processes import Processes
from wrennd.envd.routes import Router
from wrennd.envd.server import Server, adopt, listen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.rpc import Service

DEFAULT_ADDRESS = "0.0.0.0"
DEFAULT_PORT = 49983
USAGE = """usage: envd [--address ADDRESS] [--port PORT] [--listen-fd FD] [--cgroups DIR]
            [--root DIR] [--version]

The guest agent. --port 0 takes a free port; --listen-fd takes a bound socket instead of both.
--cgroups names a cgroup2 directory for users' processes; started by init it finds its own.
--root names the tree whose identity it changes and whose hooks it runs; started by init that is /.
"""


class Options:
    """The command line, understood. Errors: ValueError."""

    def __init__(self, argv: list[str]) -> None:
        self.address = DEFAULT_ADDRESS
        self.port = DEFAULT_PORT
        self.listen_fd = -1
        self.cgroups = ""
        self.root = ""
        rest = list(argv)
        while rest:
            name, separator, value = rest.pop(0).partition("=")
            if not separator:
                if not rest:
                    raise ValueError(f"{name} needs a value")
                value = rest.pop(0)
            if name == "--address":
                self.address = value
            elif name == "--port":
                self.port = _number(name, value, 0xFFFF)
            elif name == "--cgroups":
                self.cgroups = value
            elif name == "--root":
                self.root = value
            elif name == "--listen-fd":
                self.listen_fd = _number(name, value, 1 << 20)
            else:
                raise ValueError(f"unknown option {name}")


def _number(name: str, value: str, most: int) -> int:
    if not (value.isascii() and value.isdigit()) or int(value) > most:
        raise ValueError(f"{name} takes a number up to {most}, not {value!r}")
    return int(value)


def _open_missing_stdio() -> None:
    """Descriptors 0 to 2 must be taken, or a pipe of ours would become a command's stdin."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def is_guest() -> bool:
    """Whether the machine is ours: only then init itself starts envd."""
    return os.getppid() == INIT_PID and os.geteuid() == 0


def guest_cgroups() -> str:
    """Where the guest has cgroup2 mounted; empty when it hasn't, or isn't ours."""
    from wrennd.envd.mounts import find_mount, read_mountinfo

    return find_mount(read_mountinfo(), "cgroup2") if is_guest() else ""


def filesystem(loop: Loop, settings: Settings) -> Service:
    from wrennd.envd.filesystem_service import FilesystemService

    return FilesystemService(loop, settings).service()


def serve(options: Options) -> None:
    """Never returns. Errors: OSError when the socket can't be had."""
    _open_missing_stdio()
    loop = Loop()
    settings, gate = Settings(), Gate()
    root = options.root or ("/" if is_guest() else "")
    guest = Guest(Access(), settings, Clock(), gate, root)
    processes = Processes(loop)
    groups = Groups(lambda: options.cgroups or guest_cgroups())
    endpoints = Endpoints(loop, guest, groups)
    services = {
        "process.Process": ProcessService(loop, processes, settings, groups).service,
        "filesystem.Filesystem": lambda: filesystem(loop, settings),
    }
    router = Router(guest, services, endpoints)
    if options.listen_fd >= 0:
        os.set_inheritable(options.listen_fd, False)
        listener = adopt(options.listen_fd)
    else:
        listener = listen(options.address, options.port)
    server = Server(loop, listener, router, gate)
    if is_guest():
        PowerButton(loop, signal_init)
    sys.stdout.write(f"envd: listening on {options.address}:{server.port}\n")
    sys.stdout.flush()
    loop.run()


def main(argv: list[str]) -> int:
    if argv in (["--version"], ["--help"]):
        sys.stdout.write(USAGE if argv == ["--help"] else f"{VERSION}\n")
        return 0
    try:
        options = Options(argv)
    except ValueError as error:
        sys.stderr.write(f"envd: {error}\n{USAGE}")
        return 2
    try:
        serve(options)
    except OSError as error:
        sys.stderr.write(f"envd: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
