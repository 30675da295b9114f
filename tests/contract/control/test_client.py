"""The Python client, blocking and to be awaited, over the control plane with a fake host."""

import asyncio
import signal
import threading

import pytest

from wrennd.client import AsyncClient, Client
from wrennd.client.frames import pty_join
from wrennd.client.sandboxes import ServerSandboxes, ServerSnapshots
from wrennd.client.sessions import BlockingSession
from wrennd.core.deadline import Deadline
from wrennd.core.errors import AlreadyExists, CommandNotFound, NotFound, Unauthorized, WrongState
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxRequest, TerminalSize
from wrennd.core.sandboxes import Exit, Output
from wrennd.core.timings import Timings

CAT = Command(argv=("cat",), user="root", has_stdin=True)
BYTES = bytes(range(256)) * 100


@pytest.fixture
def client(server):
    with Client(server.url, server.key) as found:
        yield found
        for box in found.list():
            found.destroy(box.id)


def said(events):
    return b"".join(event.data for event in events if isinstance(event, Output))


def test_a_life(client):
    box = client.create(metadata={"for": "a test"})
    assert box.timings.phases
    assert [each.id for each in client.list(metadata={"for": "a test"})] == [box.id]
    assert client.pause(box.id).state == "paused"
    assert client.resume(box.id).state == "running"
    assert {each.operation for each in client.timings(box.id)} >= {"create", "pause", "resume"}
    assert client.snapshot(box.id, "frozen").kind == "snapshot"
    client.delete_snapshot("frozen")
    client.destroy(box.id)
    assert client.get(box.id).state == "stopped"


def test_output_and_input_of_a_command_pass_unchanged(client):
    box = client.create()
    with client.command(box.id, CAT) as running:
        assert running.send_stdin(BYTES)
        running.close_stdin()
        events = list(running.events())
    assert said(events) == BYTES
    assert events[-1] == Exit(0)
    assert running.begun.pid > 0


def test_the_same_awaited(server, client):
    box = client.create()

    async def run():
        async with (
            AsyncClient(server.url, server.key) as waiting,
            waiting.command(box.id, CAT) as running,
        ):
            await running.send_stdin(BYTES)
            await running.close_stdin()
            return [event async for event in running.events()]

    events = asyncio.run(run())
    assert said(events) == BYTES
    assert events[-1] == Exit(0)


def test_a_command_that_is_killed(client):
    box = client.create()
    with client.command(box.id, Command(argv=("sleep", "1000"))) as running:
        running.kill()
        assert list(running.events()) == [Exit(137)]


def test_a_command_that_is_not_there(client):
    box = client.create()
    with (
        client.command(box.id, Command(argv=("no-such",))) as running,
        pytest.raises(CommandNotFound),
    ):
        list(running.events())


def test_a_terminal_outlives_its_connection(client):
    box = client.create()
    size = TerminalSize(cols=80, rows=24)
    with client.command(box.id, Command(argv=("cat",), terminal=size)) as first:
        first.send_stdin(b"one\n")
        assert next(first.events())
        tag = first.begun.tag
    with BlockingSession.open(client.server, pty_join(box.id, tag)) as again:
        again.send_stdin(b"two\n")
        assert b"two" in next(again.events()).data
        again.kill()


def test_files_in_pieces(client):
    box = client.create()
    pieces = [BYTES] * 8
    assert client.upload(box.id, "/root/big", iter(pieces)) == 8 * len(BYTES)
    with client.download(box.id, "/root/big") as back:
        assert b"".join(back) == BYTES * 8
    assert client.stat(box.id, "/root/big").size == 8 * len(BYTES)
    with pytest.raises(NotFound), client.download(box.id, "/root/none"):
        pass


def test_a_key_that_does_not_count(server):
    with (
        Client(server.url, "e2b_" + "0" * 40) as stranger,
        pytest.raises(Unauthorized),
    ):
        stranger.list()


def test_a_session_of_a_sandbox_that_is_not_there(client):
    with pytest.raises(NotFound), client.command("a" * 20, CAT) as running:
        list(running.events())


def test_as_commands_see_it(client):
    sandboxes = ServerSandboxes(client)
    made = sandboxes.create(SandboxRequest(id="x" * 20, vcpus=2), Timings())
    assert made != "x" * 20
    (listed,) = sandboxes.list()
    assert (listed.id, listed.vcpus, listed.state) == (made, 2, "running")
    with sandboxes.connect(made[:6]) as box:
        assert box.id == made
    timings = Timings()
    sandboxes.pause(made[:6], timings)
    assert timings.phases_ms
    with pytest.raises(WrongState, match="is paused"), sandboxes.connect(made):
        pass
    sandboxes.resume(made, Timings())
    snapshots = ServerSnapshots(sandboxes)
    snapshots.create(made, "seen", Timings())
    with pytest.raises(AlreadyExists):
        snapshots.create(made, "seen", Timings())
    assert [each.name for each in snapshots.list()] == ["seen"]
    snapshots.remove("seen")
    timings = Timings()
    sandboxes.kill(made, timings=timings)
    assert timings.phases_ms
    with pytest.raises(NotFound):
        sandboxes.kill("zzzz")


class Interrupted(BaseException):
    pass


def test_who_is_interrupted_while_he_makes_one_leaves_none_behind(server, client):
    """He does not know its id yet."""

    def ring(number, frame):
        raise Interrupted

    def interrupt(held):
        assert held.reached.wait(60)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
        held.released.set()  # the host goes on, and the server with what it is asked next

    others = set(server.agent.boxes)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        with server.agent.hold("create_sandbox") as held:
            thread = threading.Thread(target=interrupt, args=(held,))
            thread.start()
            with pytest.raises(Interrupted):
                ServerSandboxes(client).create(SandboxRequest(id=new_sandbox_id()), Timings())
            thread.join()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert {box.id for box in client.list()} <= others
    deadline = Deadline.after(60)
    while not set(server.agent.boxes) <= others:
        deadline.check("the end of what was made all the same")
