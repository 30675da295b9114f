"""A world in namespaces of the test's own: a host, the internet, a LAN host, and guests.

                     203.0.113.10, private networks...
    guests ── host ── 198.51.100.0/24 ── internet
               └───── 192.168.77.0/24 ── lan

`host` also has the public address 203.0.113.77. Programs run in these namespaces as processes of
their own; every one is ended, and every namespace removed, on exit.
"""

import contextlib
import json
import os
import secrets
import select
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wrennd.core.deadline import Deadline
from wrennd.core.ids import new_sandbox_id
from wrennd.linux import netns, process

HERE = Path(__file__).parent
TESTS = HERE.parents[1]
TIMEOUT_S = 20.0

HOST_ADDRESS = "198.51.100.2"
HOST_PUBLIC = "203.0.113.77"
HOST_LAN = "192.168.77.1"
LAN = "192.168.77.7"
INTERNET = "203.0.113.10"
METADATA = "169.254.169.254"
# One address, with a real server, in each range that guests must not reach.
PRIVATE = (
    "0.1.2.3",
    "10.1.2.3",
    "100.64.9.9",
    METADATA,
    "172.16.5.5",
    "192.168.200.200",
    "198.18.5.5",
    "240.1.2.3",
)
RESOLVER = "10.77.0.53"
OTHER_RESOLVER = "10.77.0.54"
PORTS = (53, 80)
UPLINK_MTU = 1400


class Failed(Exception):
    """What a worker answered instead of a result: the class of its error, and the text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


@dataclass
class Program:
    """A process in a namespace whose stdout is read by lines."""

    process: process.Process
    lines: list[str] = field(default_factory=list)
    _rest: bytes = b""

    def read_line(self, deadline: Deadline) -> str:
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while b"\n" not in self._rest:
            deadline.check(f"a line of pid {self.process.pid}")
            if not select.select([fd], [], [], deadline.remaining_s)[0]:
                continue
            more = os.read(fd, 65536)
            if not more:
                raise EOFError(f"pid {self.process.pid} ended: {self.process.exit_code}")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        self.lines.append(line.decode())
        return line.decode()

    def read_until(self, wanted: str) -> list[str]:
        """Every line so far, when one equal to `wanted` has come."""
        deadline = Deadline.after(TIMEOUT_S)
        while wanted not in self.lines:
            self.read_line(deadline)
        return self.lines


@dataclass
class Worker:
    """`worker.py`, running in the host's namespace."""

    program: Program
    installation: str
    run_root: Path

    def __call__(self, verb: str, **arguments: Any) -> Any:
        stdin = self.program.process.stdin
        assert stdin is not None
        stdin.write(json.dumps([verb, arguments]).encode() + b"\n")
        stdin.flush()
        said = json.loads(self.program.read_line(Deadline.after(TIMEOUT_S)))
        if "error" in said:
            raise Failed(said["error"], said["text"])
        return said["answer"]

    def end(self) -> int | None:
        """Its exit code, once it has closed its slots (0) or is dead already."""
        stdin = self.program.process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        return self.program.process.wait(Deadline.after(TIMEOUT_S))

    def kill(self) -> None:
        self.program.process.signal(9)
        assert self.program.process.wait(Deadline.after(TIMEOUT_S)) == -9


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A namespace that stands in for a VM, cabled to a slot. `slot` is what the worker said."""

    name: str
    sandbox: str
    slot: dict[str, Any]


class World:
    """The namespaces, and what runs in them."""

    def __init__(self, held: ExitStack, tmp: Path) -> None:
        self._held = held
        self._prefix = f"nwt{secrets.token_hex(3)}"
        self.run_root = tmp / "run"
        self.servers: dict[str, Program] = {}
        for name in ("host", "internet", "lan"):
            self.add_namespace(name)

    def path(self, name: str) -> Path:
        return netns.NETNS_DIR / f"{self._prefix}-{name}"

    def add_namespace(self, name: str) -> None:
        ip("netns", "add", self.path(name).name)
        self._held.callback(ip, "netns", "del", self.path(name).name)
        self.ip(name, "link", "set", "lo", "up")

    def ip(self, name: str, *words: str) -> str:
        return ip("-n", self.path(name).name, *words)

    def run(self, name: str, *words: str, stdin: str | None = None) -> str:
        """Run a command in a namespace; its stdout."""
        argv = [*netns.enter(self.path(name)), *words]
        return process.run(argv, stdin=stdin, timeout_s=TIMEOUT_S).stdout

    def python(self, name: str, script: str, *words: str, stdin: str) -> str:
        return self.run(name, sys.executable, "-I", os.fspath(HERE / script), *words, stdin=stdin)

    def spawn(self, name: str, script: str, *words: str) -> Program:
        """Start one of our programs in a namespace, and wait until it says that it is ready."""
        argv = [*netns.enter(self.path(name)), sys.executable, os.fspath(HERE / script), *words]
        env = process.CLEAN_ENVIRONMENT | {"PYTHONPATH": os.fspath(TESTS)}
        started = process.spawn(argv, env=env, stdin=process.PIPE, stdout=process.PIPE, stderr=2)
        self._held.callback(started.close)
        program = Program(started)
        assert "ready" in program.read_line(Deadline.after(TIMEOUT_S))
        return program

    def serve(self, name: str, addresses: tuple[str, ...], ports: tuple[int, ...] = PORTS) -> None:
        words = (",".join(addresses), ",".join(map(str, ports)))
        self.servers[name] = self.spawn(name, "echo_server.py", *words)

    def worker(
        self, installation: str, *, run_root: Path | None = None, pool: str = "198.19.0.0/19"
    ) -> Worker:
        root = run_root or self.run_root
        words = ("host", "worker.py", installation, os.fspath(root), pool)
        made = Worker(self.spawn(*words), installation, root)
        self._held.callback(self._end_worker, made, words)
        return made

    def _end_worker(self, worker: Worker, words: tuple[str, ...]) -> None:
        """Let it close its slots; remove what a killed one left."""
        if worker.end() == 0:
            return
        heir = Worker(self.spawn(*words), worker.installation, worker.run_root)
        for sandbox in heir("find"):
            heir("remove", sandbox=sandbox)
        heir("sweep")

    def guest(self, worker: Worker, name: str, *, dns: tuple[str, ...] = (RESOLVER,)) -> Guest:
        """Open a slot and cable a new guest to it."""
        sandbox = new_sandbox_id()
        slot = worker("open", sandbox=sandbox, dns=list(dns))
        self.add_namespace(name)
        self.spawn("host", "guest_cable.py", slot["netns"], str(slot["uid"]), str(self.path(name)))
        self.ip(name, "link", "set", "eth0", "address", slot["mac"], "up")
        self.ip(name, "addr", "add", "169.254.0.21/30", "dev", "eth0")
        self.ip(name, "route", "add", "default", "via", "169.254.0.22")
        return Guest(name=name, sandbox=sandbox, slot=slot)

    def probe(self, name: str, *probes: tuple[str, str, int], seconds: float = 1.0) -> list[str]:
        asked = [{"protocol": p, "address": a, "port": n} for p, a, n in probes]
        said = self.python(name, "probe.py", str(seconds), stdin=json.dumps(asked))
        outcomes: list[str] = json.loads(said)
        return outcomes

    def visitors(self, name: str) -> list[dict[str, Any]]:
        """Everyone who reached the servers of a namespace since this was last asked.

        Two markers of our own tell when all before them is told: what came before the first one
        was served, at the latest, in the same round of the server's loop.
        """
        server = self.servers[name]
        for port in PORTS:
            assert self.probe(name, ("udp", "127.0.0.1", port)) == ["127.0.0.1"]
            marker = {"protocol": "udp", "address": "127.0.0.1", "port": port, "peer": "127.0.0.1"}
            server.read_until(json.dumps(marker))
        found = [json.loads(line) for line in server.lines if "{" in line]
        server.lines.clear()
        return [visit for visit in found if visit["peer"] != "127.0.0.1"]


def ip(*words: str) -> str:
    return process.run(["ip", *words], timeout_s=TIMEOUT_S).stdout


@contextmanager
def world(tmp: Path) -> Iterator[World]:
    with ExitStack() as held:
        made = World(held, tmp)
        _wire(made)
        everywhere = (INTERNET, RESOLVER, OTHER_RESOLVER, *PRIVATE)
        made.serve("internet", ("127.0.0.1", "198.51.100.1", *everywhere))
        made.serve("lan", ("127.0.0.1", LAN))
        made.serve("host", ("127.0.0.1", HOST_ADDRESS, HOST_PUBLIC, HOST_LAN))
        yield made


def _wire(made: World) -> None:
    host, internet, lan = (made.path(name).name for name in ("host", "internet", "lan"))
    for link, peer, far in (("wan0", "eth0", internet), ("lan0", "eth0", lan)):
        made.ip("host", "link", "add", link, "type", "veth", "peer", peer, "netns", far)
    for address in (f"{HOST_ADDRESS}/24 dev wan0", f"{HOST_LAN}/24 dev lan0"):
        made.ip("host", "addr", "add", *address.split())
    made.ip("host", "addr", "add", f"{HOST_PUBLIC}/32", "dev", "lo")
    made.ip("internet", "addr", "add", "198.51.100.1/24", "dev", "eth0")
    made.ip("lan", "addr", "add", f"{LAN}/24", "dev", "eth0")
    made.ip("host", "link", "set", "wan0", "mtu", str(UPLINK_MTU))
    for name, link in (("host", "wan0"), ("host", "lan0"), ("internet", "eth0"), ("lan", "eth0")):
        made.ip(name, "link", "set", link, "up")
    for address in (INTERNET, RESOLVER, OTHER_RESOLVER, *PRIVATE):
        made.ip("internet", "addr", "add", f"{address}/32", "dev", "lo")
    made.ip("host", "route", "add", "default", "via", "198.51.100.1")
    made.ip("internet", "route", "add", HOST_PUBLIC, "via", HOST_ADDRESS)
    made.ip("internet", "route", "add", "192.168.77.0/24", "via", HOST_ADDRESS)
    made.ip("lan", "route", "add", "default", "via", HOST_LAN)
    assert host != internet
