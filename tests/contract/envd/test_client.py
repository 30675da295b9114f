"""The host's client and the agent together."""

import io
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from envd_agent import heavy
from wrennd.core.deadline import Deadline
from wrennd.core.errors import (
    AlreadyExists,
    CommandNotExecutable,
    CommandNotFound,
    DeadlineExceeded,
    GuestFailed,
    InvalidInput,
    NotFound,
    VmmFailed,
)
from wrennd.core.model import Command, TerminalSize
from wrennd.core.sandboxes import Exit, Output
from wrennd.host.envd_client import EnvdClient, Started
from wrennd.host.envd_files import GuestFiles, Kind
from wrennd.host.envd_processes import Data, Ended, Events, GuestProcesses


@pytest.fixture
def client(agent, folder):
    """In force with a token of its own; folder: made before it, and removed after it."""
    client = EnvdClient(agent.address, agent.port)
    with agent.entered():
        client.wait_ready(Deadline.after(60))
        client.init(token="first", env={"GREETING": "hello"})
        yield client
        client.init(token="", env={})


def command(*argv: str, **options) -> Command:
    return Command(argv=argv, **({"user": ""} | options))


def run(client: EnvdClient, *argv: str, **options) -> tuple[bytes, bytes, int]:
    with client.start(command(*argv, **options)) as started:
        events = list(started.events())
    assert isinstance(events[-1], Exit)
    pieces = [event for event in events if isinstance(event, Output)]
    out, err = (
        b"".join(one.data for one in pieces if one.stream == name) for name in ("stdout", "stderr")
    )
    return out, err, events[-1].code


def test_streams_and_exit_code(client):
    done = run(
        client, "/bin/sh", "-c", "echo $GREETING $MINE; echo err >&2; exit 7", env={"MINE": "x"}
    )
    assert done == (b"hello x\n", b"err\n", 7)


def test_a_signal_counts_as_shells_count(client):
    assert run(client, "/bin/sh", "-c", "kill -9 $$")[2] == 137


def test_errors_have_their_classes(client, folder):
    client.upload_file(f"{folder}/plain", io.BytesIO(b""), mode=0o644)
    for error, wrong in (
        (CommandNotFound, command("no-such-command")),
        (CommandNotExecutable, command(f"{folder}/plain")),
        (InvalidInput, command("true", cwd="/no/such/place")),
        (InvalidInput, command("true", user="nobody-of-that-name")),
    ):
        with pytest.raises(error), client.start(wrong):
            pass


def test_stdin_from_another_thread(client):
    data = os.urandom(3_000_000)
    with client.start(command("cat", has_stdin=True)) as started:

        def feed() -> None:
            assert started.send_stdin(data)
            started.close_stdin()

        thread = threading.Thread(target=feed)
        thread.start()
        *pieces, end = started.events()
        thread.join()
        assert b"".join(piece.data for piece in pieces) == data
        assert end == Exit(0)
        assert not started.send_stdin(b"more")
        started.close_stdin()
        started.signal(kill=True)


def test_output_comes_while_the_command_runs(client):
    with client.start(
        command("/bin/sh", "-c", "echo one; read x; echo two", has_stdin=True)
    ) as started:
        events = started.events()
        assert next(events) == Output("stdout", b"one\n")
        assert started.send_stdin(b"\n")
        assert list(events) == [Output("stdout", b"two\n"), Exit(0)]


def test_a_command_that_closes_its_stdin_takes_no_more(client):
    script = "exec <&-; echo closed; exec sleep 60"
    with client.start(command("/bin/sh", "-c", script, has_stdin=True)) as started:
        next(started.events())
        assert not started.send_stdin(b"x")
        started.signal(kill=False)


def test_signals(client):
    with client.start(command("sleep", "60")) as started:
        started.signal(kill=False)
        assert list(started.events()) == [Exit(143)]


def test_the_time_limit(client):
    sleep = command("sleep", "60")
    with client.start(sleep, limit_s=0.3) as started, pytest.raises(DeadlineExceeded):
        list(started.events())


def test_a_terminal_and_its_size(client):
    size = TerminalSize(cols=100, rows=30)
    script = "stty -echo; stty size; read x; stty size; tty"
    with client.start(command("/bin/sh", "-c", script, has_stdin=True, terminal=size)) as started:
        events = started.events()
        said = b""
        while b"\r\n" not in said:
            said += next(events).data
        started.resize(TerminalSize(cols=90, rows=20))
        assert started.send_stdin(b"\n")
        *pieces, end = events
        said += b"".join(piece.data for piece in pieces)
        assert said.startswith(b"30 100\r\n20 90\r\n/dev/pts/")
        assert end == Exit(0)
        started.resize(size)


def test_close_wakes_every_thread(client):
    with client.start(command("sleep", "60", has_stdin=True)) as started:
        errors: list[BaseException] = []

        def wait(action) -> None:
            try:
                action()
            except GuestFailed as error:
                errors.append(error)

        threads = [
            threading.Thread(target=wait, args=(lambda: list(started.events()),)),
            threading.Thread(target=wait, args=(lambda: started.send_stdin(bytes(1 << 20)),)),
        ]
        for thread in threads:
            thread.start()
        threads[0].join(0.2)
        assert all(thread.is_alive() for thread in threads)
        started.close()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
        assert len(errors) == 2
        started.close()
    client.processes.signal(started.pid, kill=True)


def test_upload_keeps_mode_and_contents(client, folder):
    data = os.urandom(1_000_000)
    path = f"{folder}/new/tool"
    client.upload_file(path, io.BytesIO(data), mode=0o751)
    target = io.BytesIO()
    assert client.files.download(path, target) == len(data)
    assert target.getvalue() == data
    assert client.files.stat(path).mode == 0o751
    with pytest.raises(InvalidInput):
        client.upload_file(folder, io.BytesIO(b""), mode=0o644)
    with pytest.raises(InvalidInput):
        client.upload_file("x", io.BytesIO(b""), mode=0o644, user="nobody-of-that-name")
    with pytest.raises((InvalidInput, NotFound)):
        client.upload_file("/proc/none/x", io.BytesIO(bytes(20_000_000)), mode=0o644)


def test_an_upload_may_be_called_off(client, folder):
    ends = []

    def content():
        yield b"some"
        ends[0]()
        yield b"more"

    with pytest.raises(GuestFailed, match="broke off"):
        client.upload_file(f"{folder}/f", content(), mode=0o644, on_open=ends.append)
    assert run(client, "true")[2] == 0


def test_a_download_may_be_called_off(client, folder):
    run(client, "truncate", "-s", str(1 << 30), f"{folder}/f")
    ends = []

    class Sink:
        def write(self, data):
            ends[0]()
            return len(data)

    with pytest.raises(GuestFailed, match="broke off"):
        client.files.download(f"{folder}/f", Sink(), on_open=ends.append)
    assert run(client, "true")[2] == 0


def test_the_file_tree(client, folder):
    files, path = client.files, f"{folder}/ü"
    client.upload_file(f"{path}/a", io.BytesIO(b"hello"), mode=0o640)
    entry = files.stat(f"{path}/a")
    assert (entry.path, entry.name, entry.kind) == (f"{path}/a", "a", Kind.FILE)
    assert (entry.size, entry.mode, entry.symlink_target) == (5, 0o640, None)
    me = run(client, "id", "-un")[0].decode().strip()
    assert (entry.owner, entry.metadata) == (me, {})
    assert files.stat("~", user="root").path == "/root"
    changed = run(client, "stat", "-c", "%Y", f"{path}/a")[0]
    assert int(entry.modified.timestamp()) == int(changed)
    assert files.make_directory(f"{path}/b/c").kind == Kind.DIRECTORY
    assert files.move(f"{path}/a", f"{path}/b/d").name == "d"
    run(client, "ln", "-s", "b", f"{path}/link")
    assert files.stat(f"{path}/link").symlink_target == f"{path}/b"
    assert [one.path.removeprefix(path) for one in files.list(path, depth=2)] == [
        "/b",
        "/b/c",
        "/b/d",
        "/link",
    ]
    target = io.BytesIO()
    assert files.download(f"{path}/b/d", target) == 5
    assert target.getvalue() == b"hello"
    files.remove(path)
    files.remove(path)
    with pytest.raises(NotFound):
        files.stat(path)


def test_errors_of_the_file_tree(client, folder):
    files, path = client.files, folder
    for call in (
        lambda: files.stat(f"{path}/no"),
        lambda: files.list(f"{path}/no"),
        lambda: files.move(f"{path}/no", f"{path}/x"),
        lambda: files.download(f"{path}/no", io.BytesIO()),
    ):
        with pytest.raises(NotFound):
            call()
    with pytest.raises(AlreadyExists):
        files.make_directory(path)
    for call in (
        lambda: files.remove("/"),
        lambda: files.download(path, io.BytesIO()),
        lambda: files.list("/etc/passwd"),
        lambda: files.stat(path, user="nobody-of-that-name"),
    ):
        with pytest.raises(InvalidInput):
            call()


def test_processes_by_pid_and_tag(client):
    processes = client.processes
    given = command("cat", has_stdin=True, env={"A": "1"}, cwd="/")
    with processes.start(given, tag="mine") as events:
        began = next(events)
        (found,) = [one for one in processes.list() if one.pid == began.pid]
        assert (found.tag, found.cmd, found.args, found.cwd) == ("mine", "cat", (), "/")
        assert found.env == {"A": "1"}
        with processes.connect("mine") as others:
            assert next(others) == began
            assert processes.send_input("mine", b"hello")
            assert next(events) == next(others) == Data("stdout", b"hello")
            processes.close_input(began.pid)
            assert list(events) == list(others) == [Ended(0)]
    assert began.pid not in [one.pid for one in processes.list()]
    for call in (
        lambda: processes.close_input("mine"),
        lambda: processes.signal(began.pid, kill=True),
        lambda: processes.send_input(began.pid, b""),
        lambda: processes.resize(began.pid, TerminalSize(cols=1, rows=1)),
    ):
        with pytest.raises(NotFound):
            call()


def test_processes_with_a_terminal(client):
    size = TerminalSize(cols=100, rows=30)
    script = "stty -echo; echo ready; read x; stty size; exec sleep 60"
    with client.processes.start(command("/bin/sh", "-c", script, terminal=size)) as events:
        pid = next(events).pid
        assert first_line(events) == b"ready\r\n"
        with pytest.raises(InvalidInput):
            client.processes.close_input(pid)
        client.processes.resize(pid, TerminalSize(cols=90, rows=20))
        assert client.processes.send_input(pid, b"\n")
        assert first_line(events) == b"20 90\r\n"
        client.processes.signal(pid, kill=False)
        (end,) = events
        assert end.code == 128 + 15


def first_line(events):
    """Of a terminal, which hands out what it has."""
    said = b""
    while not said.endswith(b"\n"):
        event = next(events)
        assert event.kind == "pty"
        said += event.data
    return said


def test_leaving_a_process_does_not_end_it(client):
    with client.processes.start(command("sleep", "60")) as events:
        pid = next(events).pid
        events.cancel()
        with pytest.raises(GuestFailed):
            next(events)
    with client.processes.connect(pid) as events:
        next(events)
        client.processes.signal(pid, kill=True)
        (end,) = events
        assert end.code == 128 + 9


def test_a_process_that_can_t_be_started_or_joined(client):
    for error, wrong in (
        (CommandNotFound, command("no-such-command")),
        (InvalidInput, command("true", cwd="/no/such/place")),
    ):
        with client.processes.start(wrong) as events, pytest.raises(error):
            next(events)
    with client.processes.connect("nobody") as events, pytest.raises(NotFound):
        next(events)
    sleep = command("sleep", "60")
    with client.processes.start(sleep, limit_s=0.3) as events, pytest.raises(DeadlineExceeded):
        list(events)


def test_the_clock_alone(client):
    client.set_clock()
    there = int(run(client, "date", "+%s")[0])
    assert abs(there - time.time()) < 60
    assert run(client, "/bin/sh", "-c", "echo $GREETING")[0] == b"hello\n"


def test_metrics(client):
    assert client.metrics()["mem_total"] > 0


def test_freezing(freezable):
    client = EnvdClient(freezable.address, freezable.port)
    with freezable.entered(), client.start(command("cat", has_stdin=True)) as cat:
        assert client.freeze(10.0) is True
        with pytest.raises(GuestFailed, match="frozen"):
            client.metrics()
        assert client.unfreeze() == ()
        assert cat.send_stdin(b"later")
        cat.close_stdin()
        assert [e.data for e in cat.events() if isinstance(e, Output)] == [b"later"]


def test_freezing_without_groups(local_agent):
    client = EnvdClient(local_agent.address, local_agent.port)
    with local_agent.entered():
        with pytest.raises(GuestFailed, match="no cgroup2"):
            client.freeze(1.0)
        assert client.unfreeze() == ()


def test_the_token_is_used_and_replaced(agent, client):
    stranger = EnvdClient(agent.address, agent.port, token="wrong")
    with pytest.raises(GuestFailed), stranger.start(command("true")):
        pass
    with pytest.raises(GuestFailed):
        stranger.init(token="mine")
    client.init(token="second")
    assert run(client, "/bin/sh", "-c", "echo $GREETING")[0] == b"hello\n"


def test_the_agent_s_death_is_noticed(local_agent):
    pidfd = os.pidfd_open(local_agent.pid)
    client = EnvdClient(local_agent.address, local_agent.port, vmm_pidfd=pidfd)
    with closing(os.fdopen(pidfd, "rb", buffering=0)), local_agent.entered():
        client.wait_ready(Deadline.after(20))
        with client.start(command("sleep", "60")) as started:
            os.kill(local_agent.pid, 9)
            with pytest.raises((GuestFailed, VmmFailed)):
                list(started.events())
        with pytest.raises(VmmFailed):
            client.wait_ready(Deadline.after(60))


def test_proxies_of_the_environment_play_no_part(local_agent):
    code = (
        "from wrennd.host.envd_client import EnvdClient\n"
        "from wrennd.core.deadline import Deadline\n"
        "from wrennd.core.model import Command\n"
        f"client = EnvdClient('{local_agent.address}', {local_agent.port})\n"
        "client.wait_ready(Deadline.after(20))\n"
        "client.init(token='first')\n"
        "with client.start(Command(argv=('true',), user='')) as started:\n"
        "    print(list(started.events()))\n"
    )
    proxies = {name: "http://127.0.0.1:1" for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY")}
    argv = [sys.executable, "-c", code]
    with local_agent.entered():
        done = subprocess.run(argv, env=proxies, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[Exit(code=0)]\n", "")


@heavy
def test_many_commands_at_once(client):
    codes: dict[int, int] = {}

    def one(number: int) -> None:
        codes[number] = run(client, "/bin/sh", "-c", f"sleep 0.1; exit {number}")[2]

    threads = [threading.Thread(target=one, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {number: number for number in range(24)}


def test_every_operation_is_driven_here():
    """All but `grow`, which needs a disk of its own: tests/vm/test_envd.py has it."""
    here = Path(__file__).read_text()
    elsewhere = {"grow", "peer"}
    for kind in (EnvdClient, Started, GuestFiles, GuestProcesses, Events):
        operations = {name for name in vars(kind) if not name.startswith("_")} - elsewhere
        missing = {name for name in operations if f".{name}" not in here}
        assert not missing, f"{kind.__name__}: nothing drives {missing}"
