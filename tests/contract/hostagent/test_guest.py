"""What every host agent does inside a sandbox that runs: commands, streams, terminals, files."""

import threading
import time

import pytest
from protobuf import Oneof

from agent_client import command, refused
from wrennd.core.deadline import Deadline
from wrennd.core.errors import (
    AlreadyExists,
    CommandNotFound,
    InvalidInput,
    NotFound,
)
from wrennd.core.ids import new_sandbox_id
from wrennd.gen.hostagent import hostagent_pb as pb

PATIENCE_S = 30.0


def start(world, sandbox_id, *argv, tag=""):
    return world.client.start_background(
        pb.StartBackgroundRequest(sandbox_id=sandbox_id, command=command(*argv), tag=tag)
    )


def processes(world, sandbox_id):
    found = world.client.list_processes(pb.ListProcessesRequest(sandbox_id=sandbox_id))
    return {process.tag: process for process in found.processes}


def by_pid(pid):
    return pb.Selector(selector=Oneof("pid", pid))


def by_tag(tag):
    return pb.Selector(selector=Oneof("tag", tag))


def kill(world, sandbox_id, selector, signal=""):
    world.client.kill_process(
        pb.KillProcessRequest(sandbox_id=sandbox_id, process=selector, signal=signal)
    )


def until(look, what):
    """The first true answer of `look`."""
    deadline = Deadline.after(PATIENCE_S)
    while not (found := look()):
        deadline.check(what)
        time.sleep(0.05)
    return found


def kinds(events):
    return [event.event.event.field for event in events]


def output(events, kind="stdout"):
    """All of one stream's bytes."""
    data = (one.event.event.value.output for one in events if one.event.event.field == "data")
    return b"".join(piece.value for piece in data if piece.field == kind)


def code(events):
    return events[-1].event.event.value.exit_code


def test_a_command_has_output_and_a_code(world, shared):
    found = world.run(shared.id, "echo", "hello")
    assert (found.stdout, found.stderr, found.exit_code) == (b"hello\n", b"", 0)
    assert found.ms > 0
    assert world.run(shared.id, "false").exit_code == 1
    assert world.run(shared.id, "sh", "-c", "exit 3").exit_code == 3
    assert world.run(shared.id, "sh", "-c", "kill -9 $$").exit_code == 137


def test_a_command_is_given_its_surroundings(world, shared):
    spec = command("env", envs={"FRUIT": "plum"})
    found = world.client.exec(pb.ExecRequest(sandbox_id=shared.id, command=spec))
    assert b"FRUIT=plum" in found.stdout
    assert b"USER=root" in found.stdout
    spec = command("pwd", cwd="/etc")
    found = world.client.exec(pb.ExecRequest(sandbox_id=shared.id, command=spec))
    assert found.stdout == b"/etc\n"


def test_a_command_reads_its_input(world, shared):
    data = bytes(range(256)) * 4096
    found = world.run(shared.id, "cat", stdin=data)
    assert found.stdout == data


def test_a_command_that_takes_too_long_is_killed(world, shared):
    found = world.run(shared.id, "sleep", "600", timeout_s=1)
    assert found.exit_code == 124


def test_commands_that_can_not_be(world, shared):
    with refused(CommandNotFound):
        world.run(shared.id, "no-such-command")
    with refused(InvalidInput):
        world.client.exec(pb.ExecRequest(sandbox_id=shared.id))
    with refused(InvalidInput):
        spec = command("pwd", cwd="/no/such/directory")
        world.client.exec(pb.ExecRequest(sandbox_id=shared.id, command=spec))
    with refused(InvalidInput):
        spec = command("pwd", user="nobody-here")
        world.client.exec(pb.ExecRequest(sandbox_id=shared.id, command=spec))
    with refused(NotFound):
        world.run(new_sandbox_id(), "echo", "hello")


def test_a_stream_tells_what_happens(world, shared):
    request = pb.ExecStreamRequest(sandbox_id=shared.id, command=command("echo", "hello"))
    events = list(world.client.exec_stream(request))
    assert kinds(events)[0] == "start"
    assert kinds(events)[-1] == "end"
    assert output(events) == b"hello\n"
    assert code(events) == 0
    with refused(CommandNotFound):
        list(
            world.client.exec_stream(
                pb.ExecStreamRequest(sandbox_id=shared.id, command=command("no-such-command"))
            )
        )


def test_a_stream_that_takes_too_long_is_ended(world, shared):
    request = pb.ExecStreamRequest(
        sandbox_id=shared.id, command=command("sleep", "600"), timeout_s=1
    )
    events = list(world.client.exec_stream(request))
    assert kinds(events) == ["start", "end"]
    assert code(events) == 124


def test_a_stream_is_fed(world, shared):
    request = pb.ExecStreamRequest(sandbox_id=shared.id, command=command("cat"), has_stdin=True)
    events = world.client.exec_stream(request)
    first = next(events)
    process = by_pid(first.event.event.value.pid)

    def send(data):
        return world.client.send_input(
            pb.SendInputRequest(sandbox_id=shared.id, process=process, data=data)
        ).is_taken

    assert send(b"one")
    assert output([next(events)]) == b"one"
    world.client.close_input(pb.CloseInputRequest(sandbox_id=shared.id, process=process))
    rest = list(events)
    assert code(rest) == 0


def test_a_stream_that_is_left_ends_its_command(world, shared):
    request = pb.ExecStreamRequest(
        sandbox_id=shared.id, command=command("sleep", "601"), timeout_s=0
    )
    events = world.client.exec_stream(request)
    pid = next(events).event.event.value.pid
    events.close()

    def is_gone():
        found = world.client.list_processes(pb.ListProcessesRequest(sandbox_id=shared.id))
        return pid not in [process.pid for process in found.processes]

    until(is_gone, "the end of a command that nobody follows")


def test_processes_in_the_background(world, shared):
    made = start(world, shared.id, "sleep", "602", tag="sleeper")
    assert made.tag == "sleeper"
    found = processes(world, shared.id)["sleeper"]
    assert (found.pid, found.command.cmd, found.command.args) == (made.pid, "sleep", ["602"])

    events = []
    request = pb.ConnectProcessRequest(sandbox_id=shared.id, process=by_tag("sleeper"))
    followed = world.client.connect_process(request)
    assert next(followed).event.event.value.pid == made.pid
    left = world.client.connect_process(request)
    next(left)
    left.close()  # which ends nothing
    follower = threading.Thread(target=lambda: events.extend(followed))
    follower.start()
    assert "sleeper" in processes(world, shared.id)
    kill(world, shared.id, by_tag("sleeper"), "SIGTERM")
    follower.join()
    assert code(events) == 143
    assert "sleeper" not in processes(world, shared.id)
    with refused(NotFound):
        kill(world, shared.id, by_tag("no-such-tag"))
    with refused(InvalidInput):
        kill(world, shared.id, by_tag("sleeper"), "SIGSTOP")
    with refused(InvalidInput):
        kill(world, shared.id, None)


def test_a_terminal_outlives_its_callers(world, shared):
    request = pb.AttachPtyRequest(
        sandbox_id=shared.id, command=command("cat"), tag="terminal", cols=100, rows=30
    )
    events = world.client.attach_pty(request)
    begun = next(events).event.event.value
    assert begun.tag == "terminal"
    world.client.resize_pty(
        pb.ResizePtyRequest(sandbox_id=shared.id, process=by_pid(begun.pid), cols=120, rows=40)
    )
    events.close()
    joined = world.client.attach_pty(pb.AttachPtyRequest(sandbox_id=shared.id, tag="terminal"))
    assert next(joined).event.event.value.pid == begun.pid
    world.client.send_input(
        pb.SendInputRequest(sandbox_id=shared.id, process=by_tag("terminal"), data=b"typed\n")
    )
    seen = b""
    while b"typed" not in seen:
        seen += output([next(joined)], "pty")
    kill(world, shared.id, by_tag("terminal"))
    assert code(list(joined)) == 137
    with refused(InvalidInput):
        list(world.client.attach_pty(pb.AttachPtyRequest(sandbox_id=shared.id)))


def write(world, sandbox_id, path, *chunks):
    def parts():
        target = pb.WriteFileRequest.Target(sandbox_id=sandbox_id, path=path)
        yield pb.WriteFileRequest(part=Oneof("target", target))
        for chunk in chunks:
            yield pb.WriteFileRequest(part=Oneof("chunk", chunk))

    return world.client.write_file(parts()).size


def read(world, sandbox_id, path):
    answers = world.client.read_file(pb.ReadFileRequest(sandbox_id=sandbox_id, path=path))
    return [answer.chunk for answer in answers]


def listing(world, sandbox_id, path, depth=0):
    request = pb.ListDirectoryRequest(sandbox_id=sandbox_id, path=path, depth=depth)
    return [entry.path for entry in world.client.list_directory(request).entries]


def test_files_go_in_and_come_out(world, shared):
    data = bytes(range(256)) * 4096
    pieces = [data[at : at + (256 << 10)] for at in range(0, len(data), 256 << 10)]
    assert write(world, shared.id, "/srv/data/large", *pieces) == len(data)
    chunks = read(world, shared.id, "/srv/data/large")
    assert b"".join(chunks) == data
    assert max(len(chunk) for chunk in chunks) <= 256 << 10
    assert write(world, shared.id, "/srv/data/large", b"small") == 5
    assert write(world, shared.id, "/srv/data/empty") == 0
    assert read(world, shared.id, "/srv/data/large") == [b"small"]
    assert read(world, shared.id, "/srv/data/empty") == []
    assert listing(world, shared.id, "/srv/data") == ["/srv/data/empty", "/srv/data/large"]
    found = world.client.stat_path(
        pb.StatPathRequest(sandbox_id=shared.id, path="/srv/data/large")
    ).entry
    assert (found.name, found.type, found.size) == ("large", "file", 5)
    assert (found.permissions, found.owner) == ("-rw-r--r--", "root")
    assert found.modified_unix > 0


def test_the_file_tree(world, shared):
    made = world.client.make_directory(
        pb.MakeDirectoryRequest(sandbox_id=shared.id, path="/srv/tree/deep")
    ).entry
    assert (made.path, made.type) == ("/srv/tree/deep", "directory")
    assert made.permissions.startswith("drwx")
    with refused(AlreadyExists):
        world.client.make_directory(
            pb.MakeDirectoryRequest(sandbox_id=shared.id, path="/srv/tree/deep")
        )
    write(world, shared.id, "/srv/tree/deep/leaf", b"x")
    assert listing(world, shared.id, "/srv/tree") == ["/srv/tree/deep"]
    assert listing(world, shared.id, "/srv/tree", 2) == ["/srv/tree/deep", "/srv/tree/deep/leaf"]
    gone = pb.RemovePathRequest(sandbox_id=shared.id, path="/srv/tree")
    world.client.remove_path(gone)
    with refused(NotFound):
        world.client.remove_path(gone)
    with refused(NotFound):
        listing(world, shared.id, "/srv/tree")


def test_files_that_can_not_be(world, shared):
    with refused(NotFound):
        read(world, shared.id, "/no/such/file")
    with refused(InvalidInput):
        read(world, shared.id, "/etc")
    with refused(InvalidInput):
        write(world, shared.id, "/etc", b"x")
    with refused(InvalidInput):
        write(world, shared.id, "", b"x")
    with refused(NotFound):
        write(world, new_sandbox_id(), "/x", b"x")
    with refused(NotFound):
        world.client.stat_path(pb.StatPathRequest(sandbox_id=shared.id, path="/no/such/file"))
    with refused(InvalidInput):
        world.client.write_file(iter(()))


def test_a_file_whose_content_breaks_off_stays_as_it_was(world, shared):
    write(world, shared.id, "/srv/kept/file", b"before")

    def parts():
        target = pb.WriteFileRequest.Target(sandbox_id=shared.id, path="/srv/kept/file")
        yield pb.WriteFileRequest(part=Oneof("target", target))
        yield pb.WriteFileRequest(part=Oneof("chunk", b"after"))
        raise LookupError("the caller has lost it")

    with pytest.raises(Exception, match="lost it"):
        world.client.write_file(parts())
    until(
        lambda: listing(world, shared.id, "/srv/kept") == ["/srv/kept/file"],
        "the end of what was written beside it",
    )
    assert read(world, shared.id, "/srv/kept/file") == [b"before"]


def test_metrics_come(world, shared):
    request = pb.GetSandboxMetricsRequest(sandbox_id=shared.id, seconds=600)
    points = until(lambda: world.client.get_sandbox_metrics(request).points, "a first point")
    assert points[-1].mem_bytes > 0
    assert points[-1].disk_bytes > 0
    assert points[-1].unix_ms > 0
    with refused(NotFound):
        world.client.get_sandbox_metrics(pb.GetSandboxMetricsRequest(sandbox_id=new_sandbox_id()))
