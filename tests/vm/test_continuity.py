"""What goes on when a guest was paused: connections, terminals, programs in the midst of something.

One guest of the base image is paused and resumed, once; each test looks at one of its programs.
Then others are made of it, who are not one another.
"""

import base64
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from envd_agent import Agent, Stream
from kept_sandbox import KeptSandbox
from leaks import LeakCheck
from wrennd.core.config import Config
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxRequest
from wrennd.core.sandboxes import Exit, Output
from wrennd.core.timings import Timings
from wrennd.host.envd_client import PORT
from wrennd.host.local import LocalSandboxes
from wrennd.host.local_snapshots import LocalSnapshots

COMPANIONS = Path(__file__).parents[1] / "guest/companions.py"
TEMPLATE = "continuity-test"
CLOCK_S = 0.1
START = """
mkdir /at
python3 /companions.py tcp /at > /at/tcp.log 2>&1 < /dev/null &
python3 /companions.py sqlite /at > /at/sqlite.log 2>&1 < /dev/null &
sleep 100000 > /dev/null 2>&1 < /dev/null & echo $! > /at/sleeper
until [ -s /at/tcp ] && [ -s /at/sqlite ]; do sleep 0.1; done
"""
# Six guests that are busy share the host's processors.
QUIET = "kill -- -$(cat /at/tcp.group) -$(cat /at/sqlite.group)"
IDENTITY = """
cat /proc/sys/kernel/hostname /etc/machine-id /proc/sys/kernel/random/boot_id
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' '
cat /proc/sys/kernel/random/uuid
python3 -c 'import random, uuid; print(uuid.uuid4()); print(random.random())'
"""


@dataclass
class Typed:
    """A program at a terminal, which outlives the connection through which it was started."""

    pid: int
    stream: Stream

    @classmethod
    def start(cls, agent: Agent, *argv: str) -> "Typed":
        size = {"size": {"cols": 200, "rows": 30}}
        stream = agent.start(*argv, headers=agent.as_root, pty=size)
        return cls(stream.pid, stream)

    def rejoin(self, agent: Agent) -> None:
        self.stream.close()
        self.stream = agent.stream("Connect", {"process": {"pid": self.pid}}, **agent.as_root)
        self.stream.next()

    def ask(self, agent: Agent, line: str, wanted: str) -> re.Match[str]:
        """Type a line, and read until the answer comes: not what the terminal echoes."""
        self.stream.chunks.clear()
        typed = {"pty": base64.b64encode(f"{line}\n".encode()).decode()}
        status, answer = agent.rpc(
            "SendInput", {"process": {"pid": self.pid}, "input": typed}, **agent.as_root
        )
        assert status == 200, answer
        while not (found := re.search(wanted, self.stream.output["pty"].decode())):
            assert self.stream.next() is not None, "the program ended"
        return found


@dataclass
class World:
    """The guest that was paused, and what was so before. Resources: goes with its fixture."""

    sandbox: KeptSandbox
    shell: Typed
    repl: Typed
    before: dict[str, str]
    secret: str

    @property
    def agent(self) -> Agent:
        return agent_of(self.sandbox)

    def look(self) -> dict[str, str]:
        return look(self.sandbox)

    def wait_for_more(self, name: str) -> int:
        """The program goes on: what it has reached, which is more than before."""
        self.sandbox.sh(f"until [ $(cat /at/{name}) -gt {self.before[name]} ]; do sleep 0.1; done")
        return int(self.look()[name])


def look(sandbox):
    names = ("tcp", "sqlite", "sleeper")
    return dict(
        zip(
            names,
            sandbox.sh("cd /at; for i in tcp sqlite sleeper; do cat $i; echo; done").split(),
            strict=True,
        )
    )


def agent_of(sandbox):
    token = sandbox.paths.token.read_text()
    return Agent(sandbox.record.address, PORT, headers={"X-Access-Token": token})


@pytest.fixture(scope="module")
def sandboxes(layout):
    return LocalSandboxes(Config(data_dir=layout.data_dir), print)


@pytest.fixture(scope="module")
def shared_world(sandboxes, layout):
    check = LeakCheck()
    check.watch(layout.installation, layout.sandboxes)
    with ExitStack() as held:
        sandbox = KeptSandbox(sandboxes, Config(data_dir=layout.data_dir))
        held.callback(sandbox.kill)
        sandbox.create("base", 256)
        world = begin(sandbox)
        held.callback(lambda: [one.stream.close() for one in (world.shell, world.repl)])
        away(world, 0)
        yield world
    check.finish()


def away(world, seconds):
    """Pause it, and let it go on so many seconds later."""
    world.sandbox.pause()
    time.sleep(seconds)
    world.sandbox.resume()
    for one in (world.shell, world.repl):
        one.rejoin(world.agent)


def begin(sandbox):
    sandbox.upload(COMPANIONS, "/companions.py")
    sandbox.sh(START)
    agent = agent_of(sandbox)
    shell, repl = Typed.start(agent, "/bin/bash"), Typed.start(agent, "/usr/bin/python3", "-q")
    shell.ask(agent, "kept=4; (sleep 6; echo d''one > /at/slept) & echo re''ady", "ready")
    line = "import secrets, time; kept = secrets.token_hex(8); print('kept', kept)"
    secret = repl.ask(agent, line, r"kept ([0-9a-f]{16})")[1]
    return World(sandbox, shell, repl, look(sandbox), secret)


def test_a_connection_between_two_processes_goes_on(shared_world):
    shared_world.wait_for_more("tcp")


def test_a_listening_socket_is_called(shared_world):
    assert shared_world.sandbox.sh("python3 /companions.py call") == "welcome\n"


def test_a_terminal_has_its_shell(shared_world):
    shared_world.shell.ask(shared_world.agent, "echo answer $((kept * 10 + 2))", "answer 42")


def test_an_interpreter_has_its_variables(shared_world):
    line = "print('still', kept)"
    found = shared_world.repl.ask(shared_world.agent, line, r"still ([0-9a-f]{16})")
    assert found[1] == shared_world.secret


def test_sleepers_sleep_on_and_wake(shared_world):
    shared_world.sandbox.sh(
        f"grep -q sleep /proc/{shared_world.before['sleeper']}/comm;"
        "until grep -q done /at/slept; do sleep 0.1; done"
    )


def test_a_database_goes_on_and_is_whole(shared_world):
    reached = shared_world.wait_for_more("sqlite")
    script = (
        "import sqlite3; c = sqlite3.connect('/at/rows.db', timeout=60);"
        "print(*c.execute('pragma integrity_check').fetchone(),"
        " *c.execute('select count(*), max(number), min(number) from rows').fetchone())"
    )
    verdict, count, last, first = shared_world.sandbox.sh(f'python3 -c "{script}"').split()
    assert (verdict, first) == ("ok", "1")
    assert count == last
    assert int(last) >= reached


def test_the_clock_is_the_hosts(shared_world):
    """By a process that is there already: nothing is started between the two looks at ours."""
    before = time.time()
    found = shared_world.repl.ask(
        shared_world.agent, "print('now', time.time())", r"now ([0-9.]+)\s"
    )
    assert before - CLOCK_S < float(found[1]) < time.time() + CLOCK_S


@pytest.mark.long
def test_the_clock_is_the_hosts_after_a_minute_away(shared_world):
    away(shared_world, 60)
    test_the_clock_is_the_hosts(shared_world)


def test_five_that_are_made_of_it_are_not_one_another(shared_world, sandboxes):
    snapshots = LocalSnapshots(sandboxes)
    shared_world.sandbox.sh(QUIET)
    with ExitStack() as held:
        snapshots.create(shared_world.sandbox.id, TEMPLATE, Timings())
        held.callback(snapshots.remove, TEMPLATE)
        made = [new_sandbox_id() for _ in range(5)]
        found = [shared_world.sandbox.sh(IDENTITY).split()]
        for sandbox_id in made:
            sandboxes.create(SandboxRequest(id=sandbox_id, template=TEMPLATE), Timings())
            held.callback(sandboxes.kill, sandbox_id)
            found.append(run(sandboxes, sandbox_id, IDENTITY).split())
        for values in zip(*found, strict=True):
            assert len({*values}) == 6, values
        assert [values[0] for values in found] == [shared_world.sandbox.id, *made]


def run(sandboxes, sandbox_id, script):
    command = Command(argv=("sh", "-c", script), user="root")
    with sandboxes.connect(sandbox_id) as sandbox, sandbox.start(command) as running:
        *output, end = running.events()
    said = b"".join(one.data for one in output if isinstance(one, Output)).decode()
    assert end == Exit(0), said
    return said
