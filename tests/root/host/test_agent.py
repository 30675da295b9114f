"""The host agent without guests: its socket and its callers, its lock, what it finds at start."""

import contextlib
import os
import signal
import stat
import sys
import tempfile
import time
from pathlib import Path

import pytest

from agent_client import AgentProcess, UnixTransport, refused
from wrennd.core.deadline import Deadline
from wrennd.core.errors import AlreadyExists, InvalidInput, NoCapacity, NotFound, WrongState
from wrennd.core.ids import new_sandbox_id
from wrennd.core.states import State
from wrennd.gen.hostagent import hostagent_pb as pb
from wrennd.host.agent import peers
from wrennd.host.record import Owner, Record
from wrennd.linux import process
from wrennd.storage.layout import Layout

NOBODY = 65534
ASK = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(30)
sock.connect(sys.argv[1])
try:
    sock.sendall(b"GET / HTTP/1.1\\r\\nhost: agent\\r\\n\\r\\n")
    print(sock.recv(12).decode())
except ConnectionError:
    print("")
"""


@pytest.fixture
def layout(tmp_path, leak_check):
    made = Layout.prepare(tmp_path / "data")
    leak_check.watch(made.installation, made.sandboxes)
    return made


@pytest.fixture
def agent(layout, tmp_path):
    agent = AgentProcess(layout.data_dir, tmp_path)
    yield agent
    agent.close()


@pytest.fixture
def open_folder():
    """A directory that everybody may enter; pytest's are their owner's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def serving(layout, open_folder):
    """Agents whose socket everybody may open."""
    with contextlib.ExitStack() as held:

        def serve(*options):
            agent = AgentProcess(layout.data_dir, open_folder, *options)
            held.callback(agent.close)
            agent.start()
            agent.socket.chmod(0o666)
            return agent

        yield serve


def answer_to_nobody(agent):
    """What somebody without rights gets."""
    argv = ("setpriv", f"--reuid={NOBODY}", "--clear-groups", "/usr/bin/python3", "-c", ASK)
    return process.run([*argv, agent.socket], timeout_s=60).stdout.strip()


def keep(layout, state, *, owner=Owner.INSTALLATION, raw=None):
    """A sandbox whose maker is dead."""
    sandbox_id = new_sandbox_id()
    paths = layout.sandbox(sandbox_id)
    paths.data.mkdir(mode=0o700)
    paths.owner_lock.touch(mode=0o600)
    made = Record(
        id=sandbox_id,
        owner=owner,
        state=state,
        template="busybox",
        vcpus=1,
        mem_mib=128,
        created="2026-01-02T03:04:05+00:00",
        overlay="copy",
    )
    paths.record.write_bytes(made.encode() if raw is None else raw)
    return sandbox_id


def listed(agent):
    found = agent.client.list_sandboxes(pb.ListSandboxesRequest())
    return {sandbox.id: sandbox for sandbox in found.sandboxes}, found.gone


def test_the_socket_is_for_root_and_its_group(agent):
    agent.start()
    assert stat.S_IMODE(agent.socket.stat().st_mode) == 0o660
    assert agent.socket.stat().st_uid == 0
    assert agent.client.get_host(pb.GetHostRequest()).installation
    assert agent.stop() == 0
    assert not agent.socket.exists()


def test_others_are_refused_by_their_uid(serving):
    agent = serving()
    assert answer_to_nobody(agent) == ""
    assert "refused" in agent.log.read_text()
    assert agent.client.get_host(pb.GetHostRequest()).installation


def test_the_control_plane_is_let_in(serving):
    assert answer_to_nobody(serving("--allow-uid", str(NOBODY))) == "HTTP/1.1 404"


def test_a_data_directory_has_one_agent(agent, layout, tmp_path):
    agent.start()
    folder = tmp_path / "second"
    folder.mkdir()
    second = AgentProcess(layout.data_dir, folder)
    try:
        assert second.spawn().wait(Deadline.after(60)) == 1
        assert "another host agent serves" in second.log.read_text()
        assert "Traceback" not in second.log.read_text()
    finally:
        second.close()
    assert listed(agent)


def test_a_dead_agents_socket_and_lock_are_nobodys(agent):
    agent.start()
    agent.kill()
    assert agent.socket.exists()
    agent.start()
    assert agent.stop() == 0


def test_what_is_no_dead_socket_is_left_alone(tmp_path):
    path = tmp_path / "agent.sock"
    path.write_text("precious")
    with pytest.raises(AlreadyExists, match="no socket"), peers.listening(path):
        pass
    assert path.read_text() == "precious"
    path.unlink()
    with peers.listening(path):
        with pytest.raises(AlreadyExists, match="listens"), peers.listening(path):
            pass
        UnixTransport(path).connected().close()
    with pytest.raises(InvalidInput, match="too long"), peers.listening(tmp_path / ("x" * 120)):
        pass


def test_start_finishes_what_was_half_done_and_keeps_the_rest(agent, layout):
    half_made = keep(layout, State.STARTING)
    half_gone = keep(layout, State.DESTROYING)
    of_a_dead_run = keep(layout, State.RUNNING, owner=Owner.PROCESS)
    gone_dead = keep(layout, State.RUNNING)
    in_error = keep(layout, State.ERROR)
    unknown = keep(layout, State.PAUSED, raw=b'{"version": 99}')
    agent.start()
    found, gone = listed(agent)
    assert found.keys() == {gone_dead, in_error, unknown}
    assert (found[gone_dead].state, found[gone_dead].cause) == ("error", "reclaim")
    assert found[gone_dead].revision == 1
    assert (found[in_error].state, found[in_error].revision) == ("error", 0)
    assert found[unknown].state == "error"
    assert "version" in found[unknown].error
    assert {one.id for one in gone} == {half_made, half_gone, of_a_dead_run}
    assert {one.cause for one in gone} == {"reclaim"}
    with refused(WrongState):
        agent.client.pause_sandbox(pb.PauseSandboxRequest(sandbox_id=unknown))
    for sandbox_id in found:
        assert agent.client.destroy_sandbox(pb.DestroySandboxRequest(sandbox_id=sandbox_id)).existed
    assert listed(agent)[0] == {}


def test_what_a_living_process_holds_is_its_own(agent, layout):
    held = keep(layout, State.RUNNING, owner=Owner.PROCESS)
    lock = layout.sandbox(held).owner_lock
    with process.spawn(
        ["/usr/bin/flock", lock, "/bin/sh", "-c", "echo; exec sleep 600"], stdout=process.PIPE
    ) as holder:
        holder.stdout.readline()
        agent.start()
        found, _ = listed(agent)
        assert (found[held].state, found[held].is_kept) == ("running", False)
        with refused(WrongState):
            agent.client.pause_sandbox(pb.PauseSandboxRequest(sandbox_id=held))
        assert layout.sandbox(held).record.exists()
    agent.close()
    agent.start()
    assert held not in listed(agent)[0]


def test_wrong_usage_is_said(layout, tmp_path):
    for options in (["--socket"], ["--socket", "x", "--mem-overcommit", "0"], []):
        done = process.run(
            [sys.executable, "-m", "wrennd.host.agent", *options], timeout_s=60, check=False
        )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_a_signal_that_comes_early_ends_it(agent):
    running = agent.spawn()
    agent_started = Deadline.after(60)
    while not agent.socket.exists():
        agent_started.check("the agent's socket")
        time.sleep(0.001)
    running.signal(signal.SIGTERM)
    assert running.wait(Deadline.after(60)) in (0, -signal.SIGTERM)
    assert not os.path.lexists(agent.socket) or running.exit_code == -signal.SIGTERM


def test_the_unknown_is_not_found(agent):
    agent.start()
    with refused(NotFound):
        agent.client.get_sandbox(pb.GetSandboxRequest(sandbox_id=new_sandbox_id()))


def test_what_does_not_fit_is_refused_before_anything_is_made(agent, layout):
    agent.start()
    there = agent.client.get_host(pb.GetHostRequest()).capacity
    too_much = pb.CreateSandboxRequest(
        sandbox_id=new_sandbox_id(), template="busybox", mem_mib=there.mem_mib
    )
    with refused(NoCapacity) as error:
        agent.client.create_sandbox(too_much)
    assert f"{there.mem_mib} MiB" in str(error.value)
    assert list(layout.sandboxes.glob("*")) == []
    assert agent.client.get_host(pb.GetHostRequest()).capacity.mem_mib_reserved == 0
