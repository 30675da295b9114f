"""A guest that comes back from a snapshot: what /init and /unfreeze do to it then.

Here nothing is restored: the agent is frozen, and told that it was. What a real restore adds, its
memory read back, is told by the tests of pause and resume.
"""

import base64
import datetime
import json
import os
from http.client import HTTPException
from pathlib import Path

import pytest

from envd_agent import heavy
from wrennd.core.deadline import Deadline
from wrennd.core.errors import GuestFailed, InvalidInput
from wrennd.core.model import Command
from wrennd.core.sandboxes import Exit, Output
from wrennd.host.envd_client import EnvdClient

FIRST = "a" * 20
SECOND = "b" * 20


def token(value):
    return {"X-Access-Token": value}


def order(new_token, sandbox_id=SECOND, **fields):
    return {
        "accessToken": new_token,
        "sandboxId": sandbox_id,
        "timestamp": datetime.datetime.now(datetime.UTC).isoformat(),
        "entropy": base64.b64encode(os.urandom(64)).decode(),
        "restored": True,
    } | fields


def init(agent, presented, body):
    status, _, reply = agent.http("POST", "/init", json.dumps(body), token(presented))
    return status, json.loads(reply) if reply else None


def unfreeze(agent):
    status, _, reply = agent.http("POST", "/unfreeze")
    return status, json.loads(reply)["hooks"] if reply else None


@pytest.fixture
def pausing(restorable):
    """A function that freezes the first sandbox's guest, whose token is then `old`."""
    agent = restorable
    assert init(agent, "", order("old", FIRST, restored=False)) == (204, None)
    agent.headers = token("old")

    def freeze():
        status, _, body = agent.http("POST", "/freeze")
        assert (status, json.loads(body)["frozen"]) == (200, True)
        return agent

    return freeze


@pytest.fixture
def hook(tree):
    def make(name, script, mode="755"):
        tree.write(f"etc/wrenn/resume.d/{name}", f"#!/bin/sh\n{script}\n", mode=mode)

    return make


def identity(tree):
    """All that says who the guest is."""
    names = (
        "proc/sys/kernel/hostname",
        "etc/hostname",
        "etc/hosts",
        "etc/machine-id",
        "var/lib/dbus/machine-id",
        "run/wrenn/sandbox-id",
        "usr/lib/wrenn/boot_id",
    )
    return {name: tree.read(name) for name in names}


def test_who_has_the_wrong_token_changes_nothing(restorable, tree, pausing):
    stream = restorable.start("sh", "-c", "read x; echo $x")
    before = identity(tree)
    agent = pausing()
    for wrong in ("", "olds", "new", "ü"):
        assert init(agent, wrong, order("new"))[0] == 401
    assert agent.http("POST", "/unfreeze", headers=token("new"))[0] == 401
    # The old token is in force and the stream is open: to the guest this was a failed pause.
    assert unfreeze(agent) == (204, None)
    assert identity(tree) == before
    selector = {"process": {"pid": stream.pid}}
    line = {"stdin": base64.b64encode(b"hello\n").decode()}
    assert agent.rpc("SendInput", selector | {"input": line})[0] == 200
    assert stream.rest().output["stdout"] == b"hello\n"


def test_the_old_token_brings_the_new_one_and_nothing_is_served_between(pausing):
    agent = pausing()
    for path in ("/metrics", "/envs", "/files?path=/etc/passwd"):
        assert agent.http("GET", path)[0] == 503
    status, reply = init(agent, "old", order("new"))
    assert (status, reply["warnings"]) == (200, [])
    assert agent.http("GET", "/metrics", headers=token("new"))[0] == 503
    assert agent.http("POST", "/unfreeze")[0] == 401
    agent.headers = token("new")
    assert unfreeze(agent) == (200, [])
    assert agent.http("GET", "/metrics")[0] == 200
    assert agent.http("GET", "/metrics", headers=token("old"))[0] == 401
    assert init(agent, "old", order("newer"))[0] == 401


def test_connections_of_before_are_dropped_and_processes_go_on(restorable, pausing, folder):
    log = f"{folder}/log"
    script = f"while :; do echo tick | tee -a {log}; sleep 0.02; done"
    stream = restorable.start("sh", "-c", script)
    assert stream.next()["data"]
    idle, half = restorable.socket(), restorable.socket()
    idle.sendall(b"GET /health HTTP/1.1\r\n\r\n")
    assert idle.recv(4096).startswith(b"HTTP/1.1 204")
    half.sendall(b"POST /files?path=/tmp/x HTTP/1.1\r\nX-Access-Token: old\r\n")
    agent = pausing()
    assert init(agent, "old", order("new"))[0] == 200
    for sock in (idle, half):
        with sock, pytest.raises(ConnectionResetError):
            sock.recv(1)
    with pytest.raises((HTTPException, OSError)):
        list(iter(stream.next, None))
    stream.close()
    agent.headers = token("new")
    unfreeze(agent)
    with agent.stream("Connect", {"process": {"pid": stream.pid}}, **agent.headers) as again:
        assert again.next() == {"start": {"pid": stream.pid}}
        # The first of it may be from before, kept for whoever comes late.
        assert again.next()["data"]
        stood_at = len(agent.get(log)[2])
        while len(agent.get(log)[2]) <= stood_at:
            assert again.next()["data"]
    selector = {"process": {"pid": stream.pid}, "signal": "SIGNAL_SIGKILL"}
    assert agent.rpc("SendSignal", selector) == (200, {})


def test_an_order_that_is_repeated_is_carried_out_once(pausing, hook, folder):
    hook("10-count", f"echo x >> {folder}/count")
    agent = pausing()
    assert init(agent, "old", order("new"))[0] == 200
    with agent.socket() as since:
        since.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert since.recv(4096).startswith(b"HTTP/1.1 204")
        # The answer was lost: the host knows the old token, and repeats the new one.
        for _ in range(5):
            assert init(agent, "old", order("new"))[0] == 200
        since.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert since.recv(4096).startswith(b"HTTP/1.1 204")
    agent.headers = token("new")
    first = unfreeze(agent)
    assert [one["status"] for one in first[1]] == ["exit status 0"]
    assert unfreeze(agent) == first
    assert agent.get(f"{folder}/count")[2] == b"x\n"


def test_meanwhile_no_hook_runs_and_the_boot_id_stays(pausing, hook, tmp_path):
    """What only who sees the guest's files from outside can tell: it serves none yet."""
    hook("10-count", f"echo x >> {tmp_path}/count")
    agent = pausing()
    former = (tmp_path / "usr/lib/wrenn/boot_id").read_text()
    assert init(agent, "old", order("new"))[0] == 200
    boot_id = (tmp_path / "usr/lib/wrenn/boot_id").read_text()
    for _ in range(5):
        assert init(agent, "old", order("new"))[0] == 200
    assert (tmp_path / "usr/lib/wrenn/boot_id").read_text() == boot_id != former
    assert not (tmp_path / "count").exists()


def test_the_next_restore_is_another_one(pausing, hook, folder):
    hook("10-count", f"echo $WRENN_FORMER_SANDBOX_ID $WRENN_SANDBOX_ID >> {folder}/count")
    agent = pausing()
    for presented, new, sandbox_id in (("old", "one", SECOND), ("one", "two", SECOND)):
        assert init(agent, presented, order(new, sandbox_id))[0] == 200
        agent.headers = token(new)
        assert len(unfreeze(agent)[1]) == 1
        pausing()
    # A pause that fails afterwards runs no hooks.
    assert unfreeze(agent) == (204, None)
    said = agent.get(f"{folder}/count")[2].decode()
    assert said == f"{FIRST} {SECOND}\n{SECOND} {SECOND}\n"


@pytest.mark.parametrize("missing", ["accessToken", "sandboxId", "timestamp", "entropy"])
def test_half_an_order_is_refused(pausing, missing):
    agent = pausing()
    body = order("new")
    del body[missing]
    assert init(agent, "old", body)[0] == 400
    for wrong in ({"entropy": "AAAA"}, {"sandboxId": "A b"}, {"restored": 1}):
        assert init(agent, "old", order("new") | wrong)[0] == 400
    assert unfreeze(agent) == (204, None)


def test_the_guest_becomes_the_sandbox(restorable, tree, pausing):
    tree.write("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {FIRST}\n10.0.0.1 {FIRST}\n")
    tree.write("etc/hostname", f"{FIRST}\n")
    tree.write("var/lib/dbus/machine-id", tree.read("etc/machine-id"))
    former = identity(tree)
    stale = restorable.start("sh", "-c", "read x; echo $WRENN_SANDBOX_ID")
    agent = pausing()
    assert init(agent, "old", order("new"))[1]["warnings"] == []
    agent.headers = token("new")
    unfreeze(agent)
    now = identity(tree)
    assert now["proc/sys/kernel/hostname"].strip() == SECOND
    assert now["etc/hostname"] == now["run/wrenn/sandbox-id"] == f"{SECOND}\n"
    assert now["etc/hosts"] == f"127.0.0.1 localhost\n127.0.1.1 {SECOND}\n10.0.0.1 {FIRST}\n"
    assert now["etc/machine-id"] == now["var/lib/dbus/machine-id"] != former["etc/machine-id"]
    assert (len(now["etc/machine-id"]), int(now["etc/machine-id"], 16) > 0) == (33, True)
    assert now["usr/lib/wrenn/boot_id"] != former["usr/lib/wrenn/boot_id"]
    assert agent.sh("echo $WRENN_SANDBOX_ID").output["stdout"].decode() == f"{SECOND}\n"
    assert json.loads(agent.http("GET", "/envs")[2]) == {"WRENN_SANDBOX_ID": SECOND}
    stale.close()


def test_what_a_user_renamed_stays_when_the_sandbox_is_the_same(pausing, tree):
    tree.sh("echo mine > proc/sys/kernel/hostname")
    kept = identity(tree)
    agent = pausing()
    assert init(agent, "old", order("new", FIRST))[0] == 200
    agent.headers = token("new")
    unfreeze(agent)
    assert identity(tree) == kept


def test_what_can_t_be_changed_is_told_and_no_more(pausing, tree):
    tree.sh("rm -f etc/machine-id etc/hosts; mkfifo etc/machine-id; mkdir etc/hosts")
    agent = pausing()
    status, reply = init(agent, "old", order("new"))
    assert status == 200
    assert [text.split(" could")[0] for text in reply["warnings"]] == [
        "the host name",
        "the machine-id",
    ]
    agent.headers = token("new")
    unfreeze(agent)
    assert tree.read("run/wrenn/sandbox-id") == f"{SECOND}\n"


def test_variables_that_were_given_stay_unless_they_are_given_again(pausing):
    agent = pausing()
    init(agent, "old", order("one", envVars={"A": "1"}))
    init(agent, "one", order("two"))
    agent.headers = token("two")
    unfreeze(agent)
    assert agent.sh("echo $A $WRENN_SANDBOX_ID").output["stdout"].decode() == f"1 {SECOND}\n"


def test_hooks_run_in_order_as_root_before_anybody_else(restorable, pausing, hook, tree, folder):
    log, said = f"{folder}/log", f"{folder}/said"
    hook("20-second", f"echo second >> {said}; stat -c %s {log} >> {said}")
    hook("10-first", f"id -u >> {said}; stat -c %s {log} >> {said}; sleep 0.1")
    hook("30-env", f"echo $WRENN_SANDBOX_ID $WRENN_FORMER_SANDBOX_ID $HOME $PWD >> {said}")
    hook("40-not-executable", f"echo no >> {said}", mode="644")
    hook(".50-hidden", f"echo no >> {said}")
    hook("60-backup~", f"echo no >> {said}")
    tree.sh("mkdir etc/wrenn/resume.d/70-folder")
    ticker = restorable.start("sh", "-c", f"while :; do echo | tee -a {log}; sleep 0.01; done")
    assert ticker.next()["data"]
    agent = pausing()
    init(agent, "old", order("new"))
    agent.headers = token("new")
    _, reports = unfreeze(agent)
    assert [one["name"] for one in reports] == ["10-first", "20-second", "30-env"]
    assert {one["status"] for one in reports} == {"exit status 0"}
    assert reports[0]["ms"] >= 100
    uid, one_size, second, other_size, env = agent.get(said)[2].decode().splitlines()
    assert (uid, second) == ("0", "second")
    assert one_size == other_size
    assert env == f"{SECOND} {FIRST} /root /"
    agent.rpc("SendSignal", {"process": {"pid": ticker.pid}, "signal": "SIGNAL_SIGKILL"})
    ticker.close()


def test_hooks_that_fail_are_told_and_the_others_run(pausing, hook, tree):
    hook("10-fails", "echo out; echo err >&2; exit 3")
    hook("20-killed", "kill -9 $$")
    tree.write("etc/wrenn/resume.d/30-no-program", "#!/no/such/interpreter\n", mode="755")
    hook("40-loud", "head -c 1000000 /dev/zero | tr '\\0' x")
    hook("50-works", "echo fine")
    agent = pausing()
    init(agent, "old", order("new"))
    agent.headers = token("new")
    _, reports = unfreeze(agent)
    found = {one["name"]: one["status"] for one in reports}
    assert found["30-no-program"].startswith("can't be run: ")
    del found["30-no-program"]
    assert found == {
        "10-fails": "exit status 3",
        "20-killed": "signal: killed",
        "40-loud": "exit status 0",
        "50-works": "exit status 0",
    }
    assert agent.sh("true").end["exitCode"] == 0
    log = "run/wrenn/resume.log"
    entry = agent.fs("Stat", {"path": tree.path(log)}, **agent.as_root)[1]["entry"]
    assert (entry["permissions"], entry["owner"]) == ("-rw-------", "root")
    text = tree.read(log)
    assert text.startswith(("out\nerr\n== 10-fails: exit status 3\n", "err\nout\n=="))
    assert text.endswith("fine\n== 50-works: exit status 0\n")
    assert text.count("x") < 70_000


@heavy
@pytest.mark.long
def test_a_hook_that_hangs_is_killed_after_its_ten_seconds(pausing, hook):
    """By the limits that count; test_hooks.py has them with limits of its own."""
    hook("10-hangs", "sleep 600 & wait")
    hook("20-works", "")
    agent = pausing()
    init(agent, "old", order("new"))
    agent.headers = token("new")
    _, reports = unfreeze(agent)
    assert [one["status"] for one in reports] == ["timed out", "exit status 0"]
    assert reports[0]["ms"] >= 10_000


def test_calls_while_hooks_run_wait_for_the_same_end(pausing, hook, tmp_path):
    os.mkfifo(tmp_path / "go")
    hook("10-waits", f"echo ran >> {tmp_path}/said; read x < {tmp_path}/go")
    agent = pausing()
    init(agent, "old", order("new"))
    agent.headers = token("new")
    request = b"POST /unfreeze HTTP/1.1\r\nX-Access-Token: new\r\n\r\n"
    calls = [agent.socket() for _ in range(3)]
    for call in calls:
        call.sendall(request)
    calls.pop().close()
    writer = os.open(tmp_path / "go", os.O_WRONLY)  # once the hook has opened it
    assert agent.http("GET", "/metrics")[0] == 503
    assert agent.is_alive()
    os.close(writer)
    for call in calls:
        with call:
            assert call.recv(4096).startswith(b"HTTP/1.1 200")
    assert (tmp_path / "said").read_text() == "ran\n"
    assert agent.http("GET", "/metrics")[0] == 200


def test_what_a_hook_leaves_behind_goes_on_and_is_frozen_next_time(pausing, hook, tmp_path):
    log = tmp_path / "log"
    script = f"(while :; do echo >> {log}; sleep 0.01; done) >/dev/null 2>&1 </dev/null & "
    hook(
        "10-daemon", script + f"while [ ! -s {log} ]; do sleep 0.01; done; echo $! > {tmp_path}/pid"
    )
    agent = pausing()
    init(agent, "old", order("new"))
    agent.headers = token("new")
    assert unfreeze(agent)[1][0]["status"] == "exit status 0"
    daemon = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{daemon}/cgroup").read_text().strip().endswith("/hooks")
    pausing()
    assert "frozen 1" in (cgroup_of(daemon) / "cgroup.events").read_text()
    assert unfreeze(agent) == (204, None)
    os.kill(daemon, 9)


def cgroup_of(pid):
    from wrennd.linux.cgroup import Hierarchy

    hierarchy = Hierarchy.find()
    assert hierarchy is not None
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    path = next(line.split("::", 1)[1] for line in lines if line.startswith("0::"))
    return Path(hierarchy.mount) / path.lstrip("/")


def test_the_host_gets_in_however_many_were_connected(restorable, pausing):
    crowd = [restorable.socket() for _ in range(520)]
    # The backlog holds those that were not accepted; the limit is what they have reached.
    crowd[0].sendall(b"POST /freeze HTTP/1.1\r\nX-Access-Token: old\r\n\r\n")
    assert crowd[0].recv(4096).startswith(b"HTTP/1.1 200")
    assert init(restorable, "old", order("new"))[0] == 200
    for sock in crowd:
        sock.close()
    restorable.headers = token("new")
    assert unfreeze(restorable) == (200, [])


def test_the_host_s_client(pausing, hook, restorable):
    hook("10-fails", "exit 3")
    with restorable.entered():
        restore_by_the_host_s_client(restorable)


def restore_by_the_host_s_client(restorable):
    host = EnvdClient(restorable.address, restorable.port, token="old")
    with host.start(Command(argv=("cat",), user="", has_stdin=True)) as cat:
        assert host.freeze(10.0)
        stranger = EnvdClient(restorable.address, restorable.port, token="wrong")
        with pytest.raises(GuestFailed, match="refuses the access token"):
            stranger.init(token="mine", sandbox_id=SECOND, restored=True)
        told = host.init(token="new", sandbox_id=SECOND, restored=True)
        assert told.warnings == ()
        assert told.clock_error_s is not None
        with pytest.raises(GuestFailed):
            list(cat.events())
    (report,) = host.unfreeze()
    assert (report.name, report.status, report.is_ok) == ("10-fails", "exit status 3", False)
    (again,) = host.unfreeze(Deadline.after(60))
    assert again == report
    argv = ("sh", "-c", "echo $WRENN_SANDBOX_ID; kill -9 $1", "sh", str(cat.pid))
    with host.start(Command(argv=argv, user="")) as started:
        events = list(started.events())
    assert events == [Output("stdout", f"{SECOND}\n".encode()), Exit(0)]
    with pytest.raises(InvalidInput):
        host.init(token="x", sandbox_id="Not an id")
    host.init(token="")


def test_a_request_of_before_that_was_never_read_is_not_carried_out(pausing, folder):
    """It waited in the listener's queue: who sent it was told that nobody answered."""
    mark = f"{folder}/mark"
    agent = pausing()
    with agent.socket() as old:
        body = json.dumps({"process": {"cmd": "touch", "args": [mark]}}).encode()
        envelope = b"\0" + len(body).to_bytes(4, "big") + body
        head = (
            "POST /process.Process/Start HTTP/1.1\r\nContent-Type: application/connect+json\r\n"
            f"X-Access-Token: old\r\nContent-Length: {len(envelope)}\r\n\r\n"
        )
        old.sendall(head.encode() + envelope)
        assert init(agent, "old", order("new"))[0] == 200
        agent.headers = token("new")
        unfreeze(agent)
        old.settimeout(20)
        try:
            reply = old.recv(4096)
        except ConnectionResetError:
            reply = b""
        assert not reply or reply.startswith((b"HTTP/1.1 503", b"HTTP/1.1 401"))
    assert agent.sh("true").end["exitCode"] == 0
    assert agent.get(mark)[0] == 404
