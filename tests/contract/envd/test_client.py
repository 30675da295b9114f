"""The host's client and the agent together."""

import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from envd_agent import running
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
from wrennd.core.model import Command
from wrennd.core.sandboxes import Exit, Output
from wrennd.host.envd_client import EnvdClient
from wrennd.host.envd_files import Kind


@pytest.fixture(scope="module")
def client(agent):
    client = EnvdClient(agent.address, agent.port)
    client.wait_ready(Deadline.after(20))
    client.init(token="first", env={"GREETING": "hello"})
    return client


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


def test_errors_have_their_classes(client, tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    for error, wrong in (
        (CommandNotFound, command("no-such-command")),
        (CommandNotExecutable, command(os.fspath(plain))),
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
    with client.start(command("/bin/sh", "-c", "echo x; sleep 60"), limit_s=0.3) as started:
        events = started.events()
        assert next(events) == Output("stdout", b"x\n")
        with pytest.raises(DeadlineExceeded):
            next(events)


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
    os.kill(started.pid, 9)


def test_upload_keeps_mode_and_contents(client, tmp_path):
    tmp_path.chmod(0o777)
    data = os.urandom(1_000_000)
    path = tmp_path / "new" / "tool"
    client.upload_file(os.fspath(path), io.BytesIO(data), mode=0o751)
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o7777 == 0o751
    with pytest.raises(InvalidInput):
        client.upload_file(os.fspath(tmp_path), io.BytesIO(b""), mode=0o644)
    with pytest.raises(InvalidInput):
        client.upload_file("x", io.BytesIO(b""), mode=0o644, user="nobody-of-that-name")
    with pytest.raises((InvalidInput, NotFound)):
        client.upload_file("/proc/none/x", io.BytesIO(bytes(50_000_000)), mode=0o644)


def test_the_file_tree(client, tmp_path):
    files, path = client.files, f"{tmp_path}/ü"
    client.upload_file(f"{path}/a", io.BytesIO(b"hello"), mode=0o640)
    entry = files.stat(f"{path}/a")
    assert (entry.path, entry.name, entry.kind) == (f"{path}/a", "a", Kind.FILE)
    assert (entry.size, entry.mode, entry.symlink_target) == (5, 0o640, None)
    assert entry.modified.timestamp() == pytest.approx(Path(path, "a").stat().st_mtime, abs=1e-5)
    assert files.make_directory(f"{path}/b/c").kind == Kind.DIRECTORY
    assert files.move(f"{path}/a", f"{path}/b/d").name == "d"
    Path(path, "link").symlink_to("b")
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
    assert not Path(path).exists()


def test_errors_of_the_file_tree(client, tmp_path):
    files, path = client.files, str(tmp_path)
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


def test_metrics_and_freezing(client, freezable):
    assert client.metrics()["mem_total"] > 0
    with pytest.raises(GuestFailed, match="no cgroup2"):
        client.freeze(1.0)
    assert client.unfreeze() == ()
    other = EnvdClient(freezable.address, freezable.port)
    with other.start(command("cat", has_stdin=True)) as cat:
        assert other.freeze(10.0) is True
        with pytest.raises(GuestFailed, match="frozen"):
            other.metrics()
        assert other.unfreeze() == ()
        assert cat.send_stdin(b"later")
        cat.close_stdin()
        assert [e.data for e in cat.events() if isinstance(e, Output)] == [b"later"]


def test_the_token_is_used_and_replaced(agent, client):
    stranger = EnvdClient(agent.address, agent.port, token="wrong")
    with pytest.raises(GuestFailed), stranger.start(command("true")):
        pass
    with pytest.raises(GuestFailed):
        stranger.init(token="mine")
    client.init(token="second", env={"GREETING": "hello"})
    assert run(client, "true")[2] == 0
    client.init(token="first", env={"GREETING": "hello"})


def test_the_agent_s_death_is_noticed():
    with running() as agent:
        pidfd = os.pidfd_open(agent.pid)
        client = EnvdClient(agent.address, agent.port, vmm_pidfd=pidfd)
        client.wait_ready(Deadline.after(20))
        with client.start(command("sleep", "60")) as started:
            os.kill(agent.pid, 9)
            with pytest.raises((GuestFailed, VmmFailed)):
                list(started.events())
        with pytest.raises(VmmFailed):
            client.wait_ready(Deadline.after(60))
        os.kill(started.pid, 9)
        os.close(pidfd)


def test_proxies_of_the_environment_play_no_part(agent):
    code = (
        "from wrennd.host.envd_client import EnvdClient\n"
        "from wrennd.core.deadline import Deadline\n"
        "from wrennd.core.model import Command\n"
        f"client = EnvdClient('127.0.0.1', {agent.port}, token='first')\n"
        "client.wait_ready(Deadline.after(20))\n"
        "client.init(token='first')\n"
        "with client.start(Command(argv=('true',), user='')) as started:\n"
        "    print(list(started.events()))\n"
    )
    proxies = {name: "http://127.0.0.1:1" for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY")}
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env=proxies, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[Exit(code=0)]\n", "")


def test_many_commands_at_once(client):
    codes: dict[int, int] = {}

    def one(number: int) -> None:
        codes[number] = run(client, "/bin/sh", "-c", f"sleep 0.1; exit {number}")[2]

    threads = [threading.Thread(target=one, args=(number,)) for number in range(24)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {number: number for number in range(24)}
    assert time.monotonic() - started < 20
