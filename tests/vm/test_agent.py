"""The host agent and real guests: killed at any moment, watched over, ended when their time comes.

What every agent does is in contract/hostagent/.
"""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from connectrpc.errors import ConnectError
from protobuf import Oneof

from agent_client import AgentProcess, client, command, refused
from wrenn_command import running, wrenn
from wrennd.core.config import Config
from wrennd.core.deadline import Deadline
from wrennd.core.errors import NotFound, WrongState
from wrennd.core.ids import new_sandbox_id
from wrennd.core.states import State
from wrennd.gen.hostagent import hostagent_pb as pb
from wrennd.host import record
from wrennd.host.local import LocalSandboxes

MEM_MIB = 128
PATIENCE_S = 120.0


@pytest.fixture
def agent(layout, leak_check, tmp_path):
    """An agent that serves; all its sandboxes end with the test."""
    leak_check.watch(layout.installation, layout.sandboxes)
    agent = AgentProcess(layout.data_dir, tmp_path)
    agent.start()
    yield agent
    agent.close()
    print(agent.log.read_text())  # pytest shows it when the test failed
    local = LocalSandboxes(Config(data_dir=layout.data_dir), print)
    for sandbox in local.list():
        local.kill(sandbox.id)


@pytest.fixture
def look(layout):
    """The record of a sandbox, as it is now."""
    return lambda sandbox_id: record.load(layout.sandbox(sandbox_id))


def until(see, what):
    """The first true answer of `see`."""
    deadline = Deadline.after(PATIENCE_S)
    while not (found := see()):
        deadline.check(what)
        time.sleep(0.01)
    return found


def create(agent, **more):
    request = pb.CreateSandboxRequest(
        sandbox_id=new_sandbox_id(), template="busybox", mem_mib=MEM_MIB, **more
    )
    return agent.client.create_sandbox(request).sandbox.id


def get(agent, sandbox_id):
    return agent.client.get_sandbox(pb.GetSandboxRequest(sandbox_id=sandbox_id)).sandbox


def say(agent, sandbox_id, *argv):
    request = pb.ExecRequest(sandbox_id=sandbox_id, command=command(*argv))
    return agent.client.exec(request).stdout


class Beside(threading.Thread):
    """A call that is under way; what it ended with is not looked at."""

    def __init__(self, call) -> None:
        super().__init__()
        self._call = call
        self.start()

    def run(self) -> None:
        try:
            self._call()
        except (ConnectError, OSError):
            self.has_failed = True


def kill_during(agent, state, look, sandbox_id, call):
    """SIGKILL the agent as soon as the sandbox is in that state, and start another."""
    under_way = Beside(call)

    def is_there():
        try:
            return look(sandbox_id).state is state
        except NotFound:
            return False

    until(is_there, f"the state {state}")
    agent.kill()
    under_way.join()
    agent.start()


def test_sigkill_at_any_moment_loses_nothing(agent, look):
    kept = create(agent)
    assert say(agent, kept, "sh", "-c", "echo treasure > /dev/shm/chest") == b""

    lost = new_sandbox_id()
    request = pb.CreateSandboxRequest(sandbox_id=lost, template="busybox", mem_mib=MEM_MIB)
    kill_during(agent, State.STARTING, look, lost, lambda: agent.client.create_sandbox(request))
    assert get(agent, kept).state == "running"
    assert say(agent, kept, "cat", "/dev/shm/chest") == b"treasure\n"
    with refused(NotFound):
        get(agent, lost)
    assert gone(agent)[lost] == "reclaim"

    pause = pb.PauseSandboxRequest(sandbox_id=kept)
    kill_during(agent, State.PAUSING, look, kept, lambda: agent.client.pause_sandbox(pause))
    found = get(agent, kept)
    assert found.state in ("running", "paused")
    assert found.cause == "reclaim"
    if found.state == "running":
        assert say(agent, kept, "cat", "/dev/shm/chest") == b"treasure\n"
        assert agent.client.pause_sandbox(pause).sandbox.state == "paused"

    resume = pb.ResumeSandboxRequest(sandbox_id=kept)
    kill_during(agent, State.RESUMING, look, kept, lambda: agent.client.resume_sandbox(resume))
    assert get(agent, kept).state == "paused"
    assert agent.client.resume_sandbox(resume).sandbox.state == "running"
    assert say(agent, kept, "cat", "/dev/shm/chest") == b"treasure\n"

    destroy = pb.DestroySandboxRequest(sandbox_id=kept)
    kill_during(agent, State.DESTROYING, look, kept, lambda: agent.client.destroy_sandbox(destroy))
    with refused(NotFound):
        get(agent, kept)
    assert agent.stop() == 0


@pytest.mark.long
def test_sigterm_finishes_operations_and_lets_guests_live(agent, look):
    kept = create(agent)
    stream = agent.client.exec_stream(
        pb.ExecStreamRequest(sandbox_id=kept, command=command("sleep", "600"))
    )
    next(stream)
    other = new_sandbox_id()
    request = pb.CreateSandboxRequest(sandbox_id=other, template="busybox", mem_mib=MEM_MIB)
    making = Beside(lambda: agent.client.create_sandbox(request))
    until(agent_has(look, other), "the beginning of a create")
    assert agent.stop() == 0
    making.join()
    assert not agent.socket.exists()
    with pytest.raises(ConnectError):
        list(stream)
    assert look(other).state is State.RUNNING
    assert look(kept).is_vmm_alive

    agent.start()
    assert {get(agent, one).state for one in (kept, other)} == {"running"}
    assert say(agent, other, "echo", "alive") == b"alive\n"


def agent_has(look, sandbox_id):
    def see():
        try:
            return look(sandbox_id)
        except NotFound:
            return None

    return see


def test_a_vmm_that_dies_is_noticed_and_its_disk_lives(agent, look):
    made = create(agent)
    assert say(agent, made, "sh", "-c", "echo kept > /root/note; sync") == b""
    os.kill(look(made).vmm_pid, signal.SIGKILL)
    found = until(lambda: get(agent, made).state == "error" and get(agent, made), "its error")
    assert found.error
    assert found.cause == "reclaim"
    with refused(WrongState):
        say(agent, made, "echo", "hello")
    with refused(WrongState):
        agent.client.resume_sandbox(pb.ResumeSandboxRequest(sandbox_id=made))
    answer = agent.client.resume_sandbox(pb.ResumeSandboxRequest(sandbox_id=made, cold=True))
    assert answer.is_cold
    assert answer.sandbox.error == ""
    assert say(agent, made, "cat", "/root/note") == b"kept\n"


@pytest.mark.long
def test_what_is_left_alone_is_paused_and_what_is_used_is_not(agent):
    idle = pb.Expiry(after=pb.Expiry.After.IDLE, seconds=1, action=pb.Expiry.Action.PAUSE)
    made = create(agent)
    stream = agent.client.exec_stream(
        pb.ExecStreamRequest(sandbox_id=made, command=command("sleep", "600"))
    )
    next(stream)
    agent.client.set_expiry(pb.SetExpiryRequest(sandbox_id=made, expiry=idle))
    # It is looked at once a second: two looks after the time that it would be due at.
    began = get(agent, made).active_unix_ms
    until(lambda: get(agent, made).active_unix_ms > began + 3500, "the passing of time")
    assert get(agent, made).state == "running"
    stream.close()
    found = until(lambda: get(agent, made).state == "paused" and get(agent, made), "its pause")
    assert found.cause == "expiry"
    # It is in the record, so it comes back with it, also in another agent.
    agent.kill()
    agent.start()
    agent.client.resume_sandbox(pb.ResumeSandboxRequest(sandbox_id=made))
    until(lambda: get(agent, made).state == "paused", "its second pause")


@pytest.mark.long
def test_what_is_destroyed_at_its_time_is_told(agent):
    ends = pb.Expiry(after=pb.Expiry.After.DEADLINE, seconds=1, action=pb.Expiry.Action.DESTROY)
    made = create(agent, expiry=ends)
    until(lambda: made not in states(agent), "its end")
    assert gone(agent)[made] == "expiry"
    agent.kill()
    agent.start()
    assert gone(agent)[made] == "expiry"


def states(agent):
    found = agent.client.list_sandboxes(pb.ListSandboxesRequest()).sandboxes
    return {sandbox.id: sandbox.state for sandbox in found}


def gone(agent):
    found = agent.client.list_sandboxes(pb.ListSandboxesRequest()).gone
    return {one.id: one.cause for one in found}


@pytest.mark.long
def test_large_files_and_slow_readers_cost_no_memory(agent):
    """32 MiB each way, and a command that writes what nobody reads."""
    made = create(agent)
    chunk = bytes(range(256)) * 1024

    def parts():
        target = pb.WriteFileRequest.Target(sandbox_id=made, path="/root/large")
        yield pb.WriteFileRequest(part=Oneof("target", target))
        for _ in range(128):
            yield pb.WriteFileRequest(part=Oneof("chunk", chunk))

    before = resident_mib(agent)
    assert agent.client.write_file(parts()).size == 128 * len(chunk)
    read = pb.ReadFileRequest(sandbox_id=made, path="/root/large")
    assert sum(len(one.chunk) for one in agent.client.read_file(read)) == 128 * len(chunk)
    unread = agent.client.exec_stream(
        pb.ExecStreamRequest(sandbox_id=made, command=command("cat", "/root/large"))
    )
    next(unread)
    abandoned = agent.client.read_file(read)
    next(abandoned)
    assert say(agent, made, "sleep", "2") == b""
    assert resident_mib(agent) < before + 24
    unread.close()
    abandoned.close()
    many = command("head", "-c", "17m", "/dev/zero")
    request = pb.ExecRequest(sandbox_id=made, command=many, timeout_s=250)
    cut = client(agent.socket, timeout_s=280).exec(request)
    assert cut.is_truncated
    assert len(cut.stdout) == 16 << 20


def resident_mib(agent):
    status = Path(f"/proc/{agent.running.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) >> 10


@pytest.mark.long
def test_commands_beside_the_agent_are_seen_and_respected(agent, layout):
    """What `wrenn create` makes is the agent's too; what `wrenn run` has is its own."""
    made = wrenn(layout.data_dir, "create", "--template", "busybox", "--memory", "128")
    assert made.returncode == 0, made.stderr
    (listed,) = states(agent)
    assert states(agent)[listed] == "running"
    assert agent.client.pause_sandbox(pb.PauseSandboxRequest(sandbox_id=listed)).phases
    assert wrenn(layout.data_dir, "resume", listed).returncode == 0
    assert say(agent, listed, "echo", "hello") == b"hello\n"

    options = ("--template", "busybox", "--memory", "128")
    with running(layout.data_dir, "run", *options, "--", "sleep", "600"):
        own = until(lambda: states(agent).keys() - {listed}, "the sandbox of a command").pop()
        until(lambda: states(agent)[own] == "running", "its start")
        agent.kill()
        agent.start()
        assert not get(agent, own).is_kept
        assert say(agent, own, "echo", "hello") == b"hello\n"
        with refused(WrongState):
            agent.client.pause_sandbox(pb.PauseSandboxRequest(sandbox_id=own))
    until(lambda: own not in states(agent), "its end with its command")


@pytest.mark.long
def test_many_are_made_at_once_and_nobody_waits_for_them(agent):
    """Lists and commands go on while more are made than have workers."""
    first = create(agent)
    requests = [
        pb.CreateSandboxRequest(sandbox_id=new_sandbox_id(), template="busybox", mem_mib=MEM_MIB)
        for _ in range(6)
    ]
    calls = [Beside(lambda one=one: agent.client.create_sandbox(one)) for one in requests]
    until(lambda: "starting" in states(agent).values(), "the beginning of one")
    assert say(agent, first, "echo", "hello") == b"hello\n"
    assert list(states(agent).values()).count("running") < 7
    for call in calls:
        call.join()
    assert sorted(states(agent).values()) == ["running"] * 7
