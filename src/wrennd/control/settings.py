"""What the control plane is told when it starts: one frozen object, made of its arguments."""

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from wrennd.core.config import DEFAULT_DATA_DIR
from wrennd.core.errors import InvalidInput

DEFAULT_PORT = 7070
DEFAULT_LISTEN = f"127.0.0.1:{DEFAULT_PORT}"
DEFAULT_AGENT = Path("/run/wrenn/agent.sock")
DEFAULT_KEY_FILE = Path("/etc/wrenn/admin.key")
DEFAULT_DATABASE = f"sqlite:///{DEFAULT_DATA_DIR}/control/wrenn.db"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How long a caller is kept waiting, in seconds; what it asked for goes on after that.

    answer: create and resume: the published client gives up on slower servers' first commands.
    pause, snapshot: below the 30 and 60 s after which that client hangs up.
    database: how long for one transaction, when the database is there and says nothing.
    head, body: how long a request may take to arrive: its head, the next piece of its body.
    taken: how long an answer's next piece may wait for its client to read.
    last: how long the last that a sandbox wrote may wait for its reader, once it has ended.
    ping: how often a WebSocket's client is asked whether it is there, and how long it may think.
    ready: how long what is done inside a sandbox waits for one that is on its way.
    """

    answer_s: float = 4.5
    pause_s: float = 20.0
    snapshot_s: float = 50.0
    ready_s: float = 25.0
    head_s: float = 30.0
    body_s: float = 30.0
    taken_s: float = 120.0
    last_s: float = 5.0
    ping_s: float = 20.0
    auth_frame_s: float = 5.0
    database_s: float = 20.0  # more than any wait for a lock: that one says what it is


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the control plane keeps things, whom it talks to, where it listens.

    domain: names below it lead to ports of sandboxes. reconcile_s: how often database and hosts
    are compared. grace_s: how long something unknown is left alone.
    """

    database: str = DEFAULT_DATABASE
    agent: Path = DEFAULT_AGENT
    listen: str = DEFAULT_LISTEN
    domain: str = "sandbox.localhost"
    key_file: Path = DEFAULT_KEY_FILE
    is_insecure_http: bool = False
    reconcile_s: float = 3.0
    grace_s: float = 30.0
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        host, _ = split_listen(self.listen)
        if not (is_loopback(host) or self.is_insecure_http):
            raise InvalidInput(
                f"{self.listen} would serve keys and sandboxes unencrypted to others",
                hint="put a proxy with TLS before 127.0.0.1, or give --insecure-http",
            )

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> Self:
        parser = argparse.ArgumentParser(prog="python -m wrennd.control", description=__doc__)
        add = parser.add_argument
        add("--database", default=cls.database, metavar="URL", help="(default: %(default)s)")
        add("--agent", type=Path, default=cls.agent, metavar="SOCKET", help="the host agent's")
        add("--listen", default=cls.listen, metavar="ADDRESS:PORT", help="(default: %(default)s)")
        add("--domain", default=cls.domain, help="of names that lead to ports of sandboxes")
        add("--key-file", type=Path, default=cls.key_file, metavar="FILE")
        add("--insecure-http", dest="is_insecure_http", action="store_true")
        return cls(**vars(parser.parse_args(arguments)))


def split_listen(text: str) -> tuple[str, int]:
    """Address and port of "127.0.0.1:7070" or "[::1]:7070". Errors: InvalidInput."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 0xFFFF:
        raise InvalidInput(f"{text!r} is not an address and a port", hint=f"as in {DEFAULT_LISTEN}")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`; names but localhost count as reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
