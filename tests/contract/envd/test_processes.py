"""process.Process as its clients see it."""

import base64
import json
import time

import pytest

from envd_agent import heavy, user_header


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_output_and_exit_code(agent):
    done = agent.sh("echo out; echo err >&2; exit 3")
    assert done.pid > 0
    assert done.output == {"stdout": b"out\n", "stderr": b"err\n", "pty": b""}
    assert done.end == {
        "exitCode": 3,
        "exited": True,
        "status": "exit status 3",
        "error": "exit status 3",
    }
    assert done.error is None


def test_success_has_no_error(agent):
    assert agent.run("true").end == {"exitCode": 0, "exited": True, "status": "exit status 0"}


@pytest.mark.parametrize(
    ("number", "text"), [(9, "signal: killed"), (15, "signal: terminated"), (1, "signal: hangup")]
)
def test_death_by_signal(agent, number, text):
    end = agent.sh(f"kill -{number} $$").end
    assert (end["exitCode"], end["exited"], end["signal"]) == (-1, False, number)
    assert end["status"] == end["error"] == text


def test_all_output_comes_before_the_end_in_order_and_in_small_pieces(agent):
    script = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done"
    done = agent.sh(script)
    assert done.output["stdout"] == b"".join(b"%d\n" % i for i in range(20000))
    assert max(len(data) for _, data in done.chunks) <= 32 << 10


def test_output_of_megabytes_is_complete(agent):
    done = agent.sh("head -c 8000000 /dev/zero; head -c 3000000 /dev/zero >&2")
    assert len(done.output["stdout"]) == 8_000_000
    assert len(done.output["stderr"]) == 3_000_000


def test_output_left_in_the_pipe_at_the_exit_is_delivered(agent):
    # 60 kB fit into the pipe: the process is gone before most of it is read.
    done = agent.sh("head -c 60000 /dev/zero; kill -9 $$")
    assert len(done.output["stdout"]) == 60000
    assert done.end["signal"] == 9


def test_a_command_that_does_not_exist_is_not_found(agent):
    failed = agent.run("no-such-command-here")
    assert failed.error == {
        "code": "not_found",
        "message": "command 'no-such-command-here' was not found",
    }
    assert failed.pid == 0
    assert agent.run("/no/such/path").error["code"] == "not_found"


def test_a_file_that_is_not_executable_is_permission_denied(agent, folder):
    script = f"{folder}/script"
    agent.put(script, b"#!/bin/sh\n")
    assert agent.run(script).error["code"] == "permission_denied"
    assert agent.run(folder).error["code"] == "permission_denied"
    agent.put(script, b"#!/no/such/interpreter\n", mode="755")
    assert agent.run(script).error["code"] == "permission_denied"
    agent.put(script, b"\x7fELF garbage")
    assert agent.run(script).error["code"] == "permission_denied"


def test_path_of_the_request_is_searched(agent, folder):
    agent.put(f"{folder}/my-tool", b"#!/bin/sh\necho mine\n", mode="755")
    assert agent.run("my-tool", envs={"PATH": folder}).output["stdout"] == b"mine\n"
    assert agent.run("my-tool").error["code"] == "not_found"


def test_on_path_only_files_count(agent, folder):
    agent.fs("MakeDir", {"path": f"{folder}/no-such-command"})
    assert agent.run("no-such-command", envs={"PATH": folder}).error["code"] == "not_found"
    agent.put(f"{folder}/a-file")
    failed = agent.run("a-file", envs={"PATH": f"/usr/bin:{folder}:/bin"})
    assert failed.error["code"] == "permission_denied"


def test_working_directory(agent, folder):
    assert agent.run("pwd", cwd=folder).output["stdout"].decode().strip() == folder
    failed = agent.run("pwd", cwd="/no/such/place")
    assert failed.error == {
        "code": "invalid_argument",
        "message": "cwd '/no/such/place' does not exist",
    }
    agent.put(f"{folder}/file")
    failed = agent.run("pwd", cwd=f"{folder}/file")
    assert failed.error["code"] == "invalid_argument"
    assert "is not a directory" in failed.error["message"]


def test_home_is_the_default_directory_and_the_tilde(agent):
    home = agent.sh('test -d "$HOME" && cd "$HOME" && pwd -P || echo /').output["stdout"]
    assert agent.sh("pwd -P").output["stdout"] == home
    assert agent.sh("pwd -P", cwd="~").output["stdout"] == home


def test_environment(agent):
    lines = agent.run("env", envs={"A": "1", "B": "x=y z"}).output["stdout"].decode().splitlines()
    env = dict(line.split("=", 1) for line in lines)
    assert env["A"] == "1"
    assert env["B"] == "x=y z"
    assert env["USER"] == env["LOGNAME"]
    assert set(env) - {"WRENN_SANDBOX_ID"} == {"PATH", "HOME", "USER", "LOGNAME", "A", "B"}


def test_arguments_are_passed_as_they_are(agent):
    arguments = ["a b", "", "$HOME", "ü€", "*", "'\""]
    done = agent.run("printf", "%s|", *arguments)
    assert done.output["stdout"].decode() == "".join(f"{one}|" for one in arguments)


def test_the_process_has_a_session_of_its_own_and_nothing_of_ours(agent):
    done = agent.sh(
        "cut -d' ' -f1,5,6 /proc/$$/stat; ls /proc/$$/fd; umask; cat /proc/$$/oom_score_adj"
    )
    first, *fds, umask, oom = done.output["stdout"].decode().split("\n")[:-1]
    pid = str(done.pid)
    assert first == f"{pid} {pid} {pid}"
    assert [fd for fd in fds if fd in ("0", "1", "2")] == ["0", "1", "2"]
    assert len(fds) <= 4  # the shell may hold one more
    assert umask == "0022"
    assert oom == "100"


def test_signals_have_their_default_actions(agent):
    status = agent.run("cat", "/proc/self/status").output["stdout"].decode()
    masks = [line.split()[1] for line in status.splitlines() if line[:6] in ("SigIgn", "SigBlk")]
    # 32 and 33 are the C library's own: no program can change them, and they may be inherited.
    theirs = 1 << 31 | 1 << 32
    assert [int(mask, 16) & ~theirs for mask in masks] == [0, 0]


def test_stdin_is_written_and_closed(agent):
    cat = agent.start("cat")
    for piece in (b"one ", b"two"):
        message = {"process": {"pid": cat.pid}, "input": {"stdin": encoded(piece)}}
        assert agent.rpc("SendInput", message) == (200, {})
    assert agent.rpc("CloseStdin", {"process": {"pid": cat.pid}}) == (200, {})
    assert cat.rest().output["stdout"] == b"one two"
    assert cat.end["exitCode"] == 0


def test_input_larger_than_any_pipe_waits_for_the_process(agent):
    count = agent.start("/bin/sh", "-c", "read go; wc -c")
    data = b"x\n" + b"y" * 2_000_000
    message = {"process": {"pid": count.pid}, "input": {"stdin": encoded(data)}}
    assert agent.rpc("SendInput", message) == (200, {})
    agent.rpc("CloseStdin", {"process": {"pid": count.pid}})
    assert count.rest().output["stdout"].strip() == b"2000000"


def test_without_stdin_the_process_reads_end_of_file(agent):
    done = agent.run("cat", stdin=False)
    assert done.end["exitCode"] == 0
    cat = agent.start("sleep", "60", stdin=False)
    message = {"process": {"pid": cat.pid}, "input": {"stdin": ""}}
    status, body = agent.rpc("SendInput", message)
    assert (status, body["code"]) == (500, "internal")
    agent.rpc("SendSignal", {"process": {"pid": cat.pid}, "signal": "SIGNAL_SIGKILL"})
    cat.rest()


def test_input_after_the_close_is_internal(agent):
    sleeper = agent.start("sleep", "60")
    selector = {"process": {"pid": sleeper.pid}}
    agent.rpc("CloseStdin", selector)
    assert agent.rpc("CloseStdin", selector) == (200, {})
    status, body = agent.rpc("SendInput", selector | {"input": {"stdin": "eA=="}})
    assert (status, body["code"]) == (500, "internal")
    agent.rpc("SendSignal", selector | {"signal": 9})
    sleeper.rest()


def test_input_that_nobody_reads_any_more_is_refused(agent):
    closer = agent.start("/bin/sh", "-c", "exec <&-; echo closed; exec sleep 60")
    while not closer.output["stdout"]:
        closer.next()
    selector = {"process": {"pid": closer.pid}}
    status, body = agent.rpc("SendInput", selector | {"input": {"stdin": "eA=="}})
    assert (status, body["code"]) == (500, "internal")
    agent.rpc("SendSignal", selector | {"signal": 9})
    closer.rest()


@pytest.mark.parametrize(
    ("signal", "number"), [("SIGNAL_SIGTERM", 15), ("SIGNAL_SIGKILL", 9), (15, 15)]
)
def test_signals_reach_the_whole_group(agent, signal, number):
    group = agent.start("/bin/sh", "-c", "sleep 60 & echo $!; wait")
    while not group.output["stdout"]:
        group.next()
    sleep = group.output["stdout"].decode().strip()
    selector = {"process": {"pid": group.pid}}
    assert agent.rpc("SendSignal", selector | {"signal": signal}) == (200, {})
    assert group.rest().end["signal"] == number
    # Gone, or a zombie that nobody has reaped yet.
    left = agent.sh(f"cat /proc/{sleep}/stat").output["stdout"]
    assert left == b"" or b") Z " in left


@pytest.mark.parametrize("signal", ["SIGNAL_SIGHUP", 1, None, "x", True])
def test_other_signals_are_refused(agent, signal):
    sleeper = agent.start("sleep", "60")
    selector = {"process": {"pid": sleeper.pid}}
    status, body = agent.rpc("SendSignal", selector | {"signal": signal})
    assert (status, body["code"]) == (400, "invalid_argument")
    agent.rpc("SendSignal", selector | {"signal": 9})
    sleeper.rest()


def test_unknown_and_ended_processes_are_not_found(agent):
    done = agent.run("true")
    for pid in (done.pid, 4_000_000_000):
        for method in ("SendSignal", "SendInput", "CloseStdin", "Update"):
            message = {"process": {"pid": pid}, "signal": 9, "input": {"stdin": ""}, "pty": {}}
            status, body = agent.rpc(method, message)
            assert (status, body["code"]) == (404, "not_found")
    status, body = agent.rpc("SendSignal", {"signal": 9})
    assert (status, body["code"]) == (400, "invalid_argument")


def test_the_time_limit_kills_the_group(agent):
    started = time.monotonic()
    done = agent.sh("sleep 60 & sleep 60", headers={"Connect-Timeout-Ms": "300"})
    assert time.monotonic() - started < 30
    assert done.end["signal"] == 9
    assert done.error["code"] == "deadline_exceeded"


def test_a_client_that_leaves_kills_nothing(agent, folder):
    agent.sh(f"mkfifo -m 666 {folder}/fifo")
    script = f"echo hi; cat {folder}/fifo; yes | head -c 1000000; exit 7"
    left = agent.start("/bin/sh", "-c", script)
    left.close()
    again = agent.stream("Connect", {"process": {"pid": left.pid}})
    assert again.next() == {"start": {"pid": left.pid}}
    agent.sh(f": > {folder}/fifo")
    assert again.rest().end["exitCode"] == 7


def test_a_late_grandchild_does_not_hold_the_end(agent):
    started = time.monotonic()
    done = agent.sh("sleep 60 & echo $!; exit 5")
    assert time.monotonic() - started < 30
    assert done.end["exitCode"] == 5
    pid = done.output["stdout"].decode().strip()
    assert agent.run("kill", pid).end["exitCode"] == 0


def test_a_grandchild_that_never_stops_writing_does_not_hold_the_end(agent):
    # Writes without a pause: on a slow host any pause may be taken for the end of the output.
    started = time.monotonic()
    done = agent.sh("while :; do echo x; done & echo $!; exit 5")
    assert time.monotonic() - started < 30
    assert done.end["exitCode"] == 5
    assert b"x\nx\n" in done.output["stdout"]
    (pid,) = [line for line in done.output["stdout"].split(b"\n") if line.isdigit()]
    assert agent.run("kill", "-9", pid.decode()).end["exitCode"] == 0


def test_a_grandchild_that_soon_ends_is_heard(agent):
    # It waits for our end without starting anything, which takes its time in an emulated guest.
    done = agent.sh("(while kill -0 $$ 2>/dev/null; do :; done; echo late) & echo early")
    assert done.output["stdout"] == b"early\nlate\n"


def test_a_daemon_may_write_on_after_the_end(agent, folder):
    agent.sh(f"mkfifo -m 666 {folder}/fifo")
    agent.sh(
        f"cd {folder}; (cat fifo; head -c 200000 /dev/zero && echo fine > result; echo done > fifo)"
        " & true"
    )
    agent.sh(f": > {folder}/fifo")
    assert agent.sh(f"cat {folder}/fifo").output["stdout"] == b"done\n"
    assert agent.get(f"{folder}/result")[2] == b"fine\n"


def test_keepalives_come_in_silence(agent):
    done = agent.run("sleep", "2.3", headers={"Keepalive-Ping-Interval": "1"})
    assert done.keepalives == 2
    assert agent.run("true", headers={"Keepalive-Ping-Interval": "no"}).end["exitCode"] == 0


def test_many_processes_at_once(agent):
    streams = [agent.start("/bin/sh", "-c", f"read go; echo {i}; exit {i}") for i in range(64)]
    assert len({one.pid for one in streams}) == 64
    for one in reversed(streams):
        message = {"process": {"pid": one.pid}, "input": {"stdin": encoded(b"go\n")}}
        assert agent.rpc("SendInput", message) == (200, {})
    for number, one in enumerate(streams):
        assert one.rest().output["stdout"] == b"%d\n" % number
        assert one.end["exitCode"] == number


@heavy
def test_nothing_is_left_of_ended_processes(fresh_agent):
    fresh_agent.run("true")
    before = fresh_agent.open_files()
    for _ in range(20):
        fresh_agent.sh("echo x; exit 1")
        fresh_agent.run("no-such-command")
        fresh_agent.sh("true", pty={"size": {"cols": 80, "rows": 24}})
    assert fresh_agent.is_alive()
    assert [line for line in fresh_agent.children() if ") Z " in line] == []
    assert fresh_agent.open_files() <= before + 1


def test_list_shows_what_runs(agent):
    sleeper = agent.start("sleep", "60", envs={"A": "1"}, cwd="/", tag="mine")
    status, body = agent.rpc("List", {})
    assert status == 200
    (found,) = [one for one in body["processes"] if one["pid"] == sleeper.pid]
    config = {"cmd": "sleep", "args": ["60"], "envs": {"A": "1"}, "cwd": "/"}
    assert found == {"config": config, "pid": sleeper.pid, "tag": "mine"}
    assert agent.rpc("SendSignal", {"process": {"tag": "mine"}, "signal": 15}) == (200, {})
    sleeper.rest()
    assert sleeper.pid not in [one["pid"] for one in agent.rpc("List", {})[1]["processes"]]


def test_connect_gives_everybody_the_same(agent):
    first = agent.start("/bin/sh", "-c", "read go; echo hello; exit 4")
    others = [agent.stream("Connect", {"process": {"pid": first.pid}}) for _ in range(3)]
    for one in others:
        assert one.next() == {"start": {"pid": first.pid}}
    message = {"process": {"pid": first.pid}, "input": {"stdin": encoded(b"go\n")}}
    agent.rpc("SendInput", message)
    for one in (first, *others):
        assert one.rest().output["stdout"] == b"hello\n"
        assert one.end["exitCode"] == 4


def test_the_end_is_kept_for_those_who_come_late(agent):
    done = agent.sh("exit 9")
    late = agent.stream("Connect", {"process": {"pid": done.pid}}).rest()
    assert (late.pid, late.end) == (done.pid, done.end)
    unknown = agent.stream("Connect", {"process": {"pid": 4_000_000_000}}).rest()
    assert unknown.error["code"] == "not_found"


def test_a_terminal(agent):
    size = {"size": {"cols": 100, "rows": 30}}
    shell = agent.start(
        "/bin/sh", "-c", "stty -echo; echo ready; read x; stty size; tty; exit 6", pty=size
    )
    while b"ready" not in shell.output["pty"]:
        shell.next()
    selector = {"process": {"pid": shell.pid}}
    assert agent.rpc("Update", selector | {"pty": {"size": {"cols": 90, "rows": 20}}}) == (200, {})
    assert agent.rpc("SendInput", selector | {"input": {"stdin": "eA=="}})[0] == 400
    assert agent.rpc("CloseStdin", selector)[1]["code"] == "failed_precondition"
    assert agent.rpc("SendInput", selector | {"input": {"pty": encoded(b"\n")}}) == (200, {})
    shell.rest()
    assert b"20 90\r\n/dev/pts/" in shell.output["pty"]
    assert shell.output["stdout"] == shell.output["stderr"] == b""
    assert shell.end["exitCode"] == 6
    assert max(len(data) for _, data in shell.chunks) <= 16 << 10
    assert agent.rpc("Update", selector | {"pty": {}})[1]["code"] == "not_found"


def test_update_needs_a_terminal(agent):
    sleeper = agent.start("sleep", "60")
    selector = {"process": {"pid": sleeper.pid}}
    status, body = agent.rpc("Update", selector | {"pty": {"size": {"cols": 1, "rows": 1}}})
    assert (status, body["code"]) == (400, "failed_precondition")
    agent.rpc("SendSignal", selector | {"signal": 9})
    sleeper.rest()


def test_stream_input(agent):
    cat = agent.start("cat")
    messages = [
        {"start": {"process": {"pid": cat.pid}}},
        {"data": {"input": {"stdin": encoded(b"one ")}}},
        {"keepalive": {}},
        {"data": {"input": {"stdin": encoded(b"z" * 300_000)}}},
    ]

    def envelopes():
        for message in messages:
            body = json.dumps(message).encode()
            yield b"\0" + len(body).to_bytes(4, "big") + body

    status, headers, body = agent.http(
        "POST",
        "/process.Process/StreamInput",
        envelopes(),
        {"Content-Type": "application/connect+json"},
    )
    assert (status, headers["content-type"]) == (200, "application/connect+json")
    assert body == b"\0\0\0\0\x02{}\x02\0\0\0\x02{}"
    agent.rpc("CloseStdin", {"process": {"pid": cat.pid}})
    assert cat.rest().output["stdout"] == b"one " + b"z" * 300_000


def test_an_unknown_user_is_unauthenticated(agent):
    failed = agent.run("true", headers=user_header("nobody-of-that-name"))
    assert failed.error["code"] == "unauthenticated"
    assert failed.error["message"] == "invalid username: 'nobody-of-that-name'"
    failed = agent.run("true", headers={"Authorization": "Basic ?"})
    assert failed.error["code"] == "unauthenticated"


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"process": {}},
        {"process": {"cmd": ""}},
        {"process": {"cmd": 5}},
        {"process": {"cmd": "a\0b"}},
        {"process": {"cmd": "\ud800"}},
        {"process": {"cmd": "true", "args": "x"}},
        {"process": {"cmd": "true", "args": [1]}},
        {"process": {"cmd": "true", "envs": {"A=B": "x"}}},
        {"process": {"cmd": "true", "envs": {"": "x"}}},
        {"process": {"cmd": "true", "envs": {"A": "x\0"}}},
        {"process": {"cmd": "true"}, "stdin": "yes"},
        {"process": {"cmd": "true"}, "tag": 5},
        {"process": {"cmd": "true", "args": ["x" * 200_000]}},
        {"process": "true"},
    ],
)
def test_bad_requests_are_invalid(agent, message):
    stream = agent.stream("Start", message).rest()
    assert stream.error["code"] == "invalid_argument"
    assert agent.is_alive()
