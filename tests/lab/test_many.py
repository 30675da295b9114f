"""Twenty at once, whose makers are killed: all are found, all can be ended, nothing is left."""

import os
import signal
import sys
import textwrap

import pytest

from wrennd.core.deadline import Deadline
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxRequest
from wrennd.core.sandboxes import Exit, Output
from wrennd.core.states import State
from wrennd.core.timings import Timings
from wrennd.host.local import LocalSandboxes
from wrennd.host.local_snapshots import LocalSnapshots
from wrennd.linux import process

COUNT = 20
TEMPLATE = "lab-many"
SHOWN = (
    ("dmsetup", "ls"),
    ("losetup", "--all"),
    ("ip", "netns"),
    ("ip", "-brief", "link"),
    ("nft", "list", "ruleset"),
    ("cat", "/proc/self/mounts"),
    ("ls", "/run/wrenn/slots"),
)
# Says which sandboxes there are as it makes them, and then waits to be killed.
MAKER = """
import sys, time
from pathlib import Path
from wrennd.core.config import Config
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxRequest
from wrennd.core.timings import Timings
from wrennd.host.local import LocalSandboxes

sandboxes = LocalSandboxes(Config(data_dir=Path(sys.argv[1]), overlay="dm"), print)
for _ in range(int(sys.argv[3])):
    wanted = SandboxRequest(id=new_sandbox_id(), template=sys.argv[2])
    sandboxes.create(wanted, Timings())
    print("made", wanted.id, flush=True)
print("all made", flush=True)
time.sleep(100000)
"""


def shown():
    """The host as its tools show it."""
    return {words: process.run(words, timeout_s=120, check=False).stdout for words in SHOWN}


def processes():
    """By their command lines, without the kernel's own."""
    found = process.run(["ps", "-eo", "args", "--no-headers"], timeout_s=120).stdout
    return sorted(
        line for line in found.splitlines() if not line.startswith(("[", "ps -eo", "(udev-worker)"))
    )


@pytest.fixture
def template(sandboxes):
    """A frozen guest of which the twenty are made; itself it is gone."""
    snapshots = LocalSnapshots(sandboxes)
    made = new_sandbox_id()
    sandboxes.create(SandboxRequest(id=made, template="busybox", mem_mib=128), Timings())
    try:
        snapshots.create(made, TEMPLATE, Timings(), ends_paused=True)
    finally:
        sandboxes.kill(made)
    yield TEMPLATE
    snapshots.remove(TEMPLATE)


@pytest.mark.timeout(3600)
def test_twenty_whose_maker_is_killed(sandboxes, config, template):
    before, running_before = shown(), processes()
    argv = [sys.executable, "-c", textwrap.dedent(MAKER), config.data_dir, template, str(COUNT)]
    ids = []
    again = LocalSandboxes(config, print)
    try:
        with process.spawn(argv, stdout=process.PIPE, stderr=2) as maker:
            while (line := maker.stdout.readline().decode().strip()) != "all made":
                assert line.startswith("made "), line or f"the maker ended: {maker.wait(soon())}"
                ids.append(line.split()[1])
            os.kill(maker.pid, signal.SIGKILL)
            assert maker.wait(soon()) == -signal.SIGKILL
        listed = {one.id: one.state for one in again.list()}
        assert listed == dict.fromkeys(ids, State.RUNNING)
        assert len(ids) == COUNT
        names = {hostname(again, sandbox_id) for sandbox_id in ids}
        assert len(names) == COUNT
    finally:
        for sandbox_id in ids:
            again.kill(sandbox_id)
    assert again.list() == []
    process.run(["udevadm", "settle", "--timeout=60"], timeout_s=90)
    assert shown() == before
    assert processes() == running_before


def hostname(sandboxes, sandbox_id):
    command = Command(argv=("hostname",))
    with sandboxes.connect(sandbox_id) as sandbox, sandbox.start(command) as running:
        events = list(running.events())
    assert events[-1] == Exit(0)
    return b"".join(event.data for event in events if isinstance(event, Output))


def soon():
    return Deadline.after(120)
