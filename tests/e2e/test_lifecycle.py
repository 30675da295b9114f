"""Sandboxes that outlive the command that made them, as a user sees them."""

import json
import os
import signal
import subprocess

import pytest

from leaks import LeakCheck
from wrenn_command import WRENN, environment, running, wrenn
from wrennd.core.deadline import Deadline
from wrennd.host import record
from wrennd.host.record import Owner

SMALL = ("--template", "busybox", "--memory", "256")


def created(data_dir, *args):
    done = wrenn(data_dir, "create", *SMALL, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def listed(data_dir, *args):
    done = wrenn(data_dir, "ls", "--json", *args)
    assert done.returncode == 0, done.stderr
    return {row["id"]: row for row in json.loads(done.stdout)["sandboxes"]}


def assert_clear(done, *words, code=125):
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("wrenn: ")
    for word in words:
        assert word in done.stderr


@pytest.fixture(scope="module")
def sandbox(layout):
    """One for all tests that leave it as it was."""
    check = LeakCheck()
    check.watch(layout.installation, layout.sandboxes)
    made = created(layout.data_dir, "--env", "A=from create", "--env", "B=too")
    yield made
    done = wrenn(layout.data_dir, "kill", made)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    check.finish()


@pytest.fixture
def run_in(sandbox, data_dir):
    def call(*args, **kwargs):
        return wrenn(data_dir, "exec", sandbox[:6], *args, **kwargs)

    return call


def test_exec_from_several_processes_at_once(sandbox, data_dir):
    script = "echo $0 out; echo $0 err >&2; sleep 1; exit $0"
    children = [
        subprocess.Popen(
            [WRENN, "exec", sandbox, "--", "sh", "-c", script, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(data_dir),
            text=True,
        )
        for number in (3, 4, 5)
    ]
    said = [child.communicate(timeout=100) for child in children]
    assert said == [(f"{number} out\n", f"{number} err\n") for number in (3, 4, 5)]
    assert [child.returncode for child in children] == [3, 4, 5]


def test_exec_takes_user_directory_environment_and_stdin(run_in, sandbox):
    words = ("--user", "root", "--cwd", "/tmp", "--env", "B=from exec", "-i", "--")
    script = 'echo "$(id -u) $PWD $A, $B, $WRENN_SANDBOX_ID $(hostname)"; cat'
    done = run_in(*words, "sh", "-c", script, stdin=b"typed")
    assert done.stdout == f"0 /tmp from create, from exec, {sandbox} {sandbox}\ntyped"
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_ends_with_the_exec_that_followed_it(run_in, sandbox, data_dir):
    assert run_in("--timeout", "1", "--", "sleep", "4242").returncode == 124
    with running(data_dir, "exec", sandbox, "--", "sh", "-c", "echo up; sleep 4242") as child:
        assert child.stdout.readline() == b"up\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
    with running(data_dir, "exec", sandbox, "--", "sh", "-c", "yes 4242") as child:
        assert child.stdout.read(5) == b"4242\n"
        child.stdout.close()
        assert child.wait(60) == 128 + signal.SIGPIPE
    assert "4242" not in run_in("--user", "root", "--", "ps").stdout


def test_exec_says_what_can_not_be_run(run_in):
    assert_clear(run_in("--", "nosuchprogram"), "nosuchprogram", code=127)
    assert_clear(run_in("--", "/etc/passwd"), "/etc/passwd", code=126)
    assert_clear(run_in("--user", "nobodyhere", "--", "true"), "nobodyhere")


def test_copies_in_and_out(run_in, sandbox, data_dir, tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub/empty").mkdir(parents=True)
    (tree / "sub/tool").write_bytes(b"#!/bin/sh\necho ran\n")
    (tree / "sub/tool").chmod(0o751)
    (tree / ("n" * 120)).write_bytes(os.urandom(300_000))
    (tree / "link").symlink_to("sub/tool")
    assert wrenn(data_dir, "cp", tree, f"{sandbox}:.").returncode == 0
    assert run_in("--", "tree/link").stdout == "ran\n"
    (tmp_path / "out").mkdir()
    assert wrenn(data_dir, "cp", f"{sandbox[:5]}:tree", tmp_path / "out").returncode == 0
    assert subprocess.run(["diff", "-r", tree, tmp_path / "out/tree"], check=False).returncode == 0
    assert (tmp_path / "out/tree/link").readlink().name == "tool"
    assert (tmp_path / "out/tree/sub/tool").stat().st_mode & 0o777 == 0o751
    one = tmp_path / "one"
    one.write_text("to be replaced")
    assert wrenn(data_dir, "cp", f"{sandbox}:tree/link", one).returncode == 0
    assert one.read_bytes() == (tree / "sub/tool").read_bytes()
    again = wrenn(data_dir, "cp", f"{sandbox}:tree", tmp_path / "out")
    assert_clear(again, "out/tree is there already")
    assert_clear(wrenn(data_dir, "cp", f"{sandbox}:/root", tmp_path / "r"), "--user root")
    assert_clear(wrenn(data_dir, "cp", f"{sandbox}:/etc/shadow", tmp_path / "s"), "denied")
    assert_clear(wrenn(data_dir, "cp", f"{sandbox}:/nosuch", tmp_path / "s"), "/nosuch")
    assert_clear(wrenn(data_dir, "cp", one, f"{sandbox}:/root/x"), "as the user user")
    assert_clear(wrenn(data_dir, "cp", one, f"{sandbox}:/no/"), "no directory '/no/'")
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "out", "one"}


def test_ls(sandbox, data_dir):
    row = listed(data_dir)[sandbox]
    assert (row["state"], row["template"], row["tier"]) == ("running", "busybox", "emulated")
    assert (row["vcpus"], row["mem_mib"], row["is_kept"]) == (1, 256, True)
    lines = [line.split() for line in wrenn(data_dir, "ls").stdout.splitlines()]
    assert lines[0] == ["ID", "TEMPLATE", "STATE", "TIER", "VCPUS", "MEMORY", "AGE", "ADDRESS"]
    (line,) = [line for line in lines if line[0] == sandbox]
    assert line[-1] == row["address"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("exec", "a" * 20, "--", "true"), ("no sandbox aaaa", "wrenn ls --all")),
        (("exec", "abc", "--", "true"), ("'abc' is not a sandbox id",)),
        (("exec", "../etc", "--", "true"), ("not a sandbox id",)),
        (("kill", "b" * 20), ("no sandbox bbbb",)),
        (("cp", "a", "b"), ("neither is in a sandbox", "ID:PATH")),
        (("cp", "aaaa:/x", "bbbb:/x"), ("both are in sandboxes",)),
        (("cp", "/nonexistent", "aaaa:/x"), ("/nonexistent",)),
        (("create", "--template", "nosuch"), ("nosuch",)),
        (("create", "--env", "1=x"), ("'1' is not the name",)),
        (("create", "--memory", "1000000"), ("does not fit",)),
    ],
)
def test_bad_input(data_dir, args, words):
    assert_clear(wrenn(data_dir, *args), *words)


def test_where_nothing_is_nothing_is_made(data_dir, tmp_path):
    nowhere = tmp_path / "data"
    assert_clear(wrenn(nowhere, "kill", "a" * 20), "no data directory")
    assert wrenn(nowhere, "ls").stderr == "there are no sandboxes\n"
    assert not nowhere.exists()


def test_one_whose_vmm_died_is_listed_as_in_error_until_it_is_killed(data_dir, layout):
    made = created(data_dir)
    with running(data_dir, "exec", made, "--", "sh", "-c", "echo up; sleep 1000") as child:
        assert child.stdout.readline() == b"up\n"
        os.kill(record.load(layout.sandbox(made)).vmm_pid, signal.SIGKILL)
        assert child.wait(60) == 125
        assert b"the sandbox ended under its command" in child.stderr.read()
    assert_clear(wrenn(data_dir, "exec", made, "--", "true"), "is in error", "wrenn kill")
    assert made not in listed(data_dir)
    row = listed(data_dir, "--all")[made]
    assert row["state"] == "error"
    assert "its VMM ended" in row["error"]
    assert layout.sandbox(made).disk.exists()
    assert [path.name for path in layout.run_dir.glob(made)] == []
    killed = wrenn(data_dir, "kill", made, "--json")
    assert killed.returncode == 0
    phases = ["vmm_end", "disk", "network", "cgroup", "files"]
    assert list(json.loads(killed.stdout)["timings_ms"]) == phases
    assert made not in listed(data_dir, "--all")
    assert_clear(wrenn(data_dir, "kill", made), "no sandbox")


def test_kill_ends_a_run_and_what_others_do_in_it(data_dir, layout):
    with running(data_dir, "run", *SMALL, "--", "sh", "-c", "echo up; sleep 1000") as owner:
        assert owner.stdout.readline() == b"up\n"
        (made,) = [row["id"] for row in listed(data_dir).values() if not row["is_kept"]]
        with running(data_dir, "exec", made, "--", "sh", "-c", "echo in; sleep 1000") as guest:
            assert guest.stdout.readline() == b"in\n"
            done = wrenn(data_dir, "kill", made, "nosuch")
            assert_clear(done, "no sandbox nosuch")
            assert (guest.wait(60), owner.wait(60)) == (125, 125)
            assert b"under its command" in guest.stderr.read()
    assert not layout.sandbox(made).data.exists()


def kept(layout):
    """Records of sandboxes that are to stay."""
    for path in layout.sandboxes.glob("*/record.json"):
        try:
            found = record.Record.decode(path.read_bytes())
        except FileNotFoundError:
            continue
        if found.owner is Owner.INSTALLATION:
            yield found


@pytest.mark.parametrize("moment", ["record", "VMM"])
def test_a_create_that_is_killed_leaves_nothing(data_dir, layout, moment):
    """The leak check at the end is the assertion: the guard undoes it all."""
    before = {found.id for found in kept(layout)}
    with running(data_dir, "create", *SMALL) as child:
        deadline = Deadline.after(100)
        while not [
            found
            for found in kept(layout)
            if found.id not in before
            and (moment == "record" or layout.sandbox(found.id).api_socket.exists())
        ]:
            deadline.check("the sandbox's making")
        child.kill()
        assert child.wait(60) == -signal.SIGKILL
    while {found.id for found in kept(layout)} != before:
        deadline.check("the guard's work")


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_creates_killed_at_any_moment_leave_nothing_or_a_sandbox_that_runs(data_dir, layout):
    import random

    chance = random.Random(4)
    before = {found.id for found in kept(layout)}
    for _ in range(12):
        with running(data_dir, "create", *SMALL) as child:
            try:
                child.wait(chance.uniform(0, 8))
            except subprocess.TimeoutExpired:
                child.kill()
            child.wait(60)
        deadline = Deadline.after(60)
        while (rows := listed(data_dir, "--all")) and any(
            row["state"] != "running" for row in rows.values()
        ):
            deadline.check("the guard's work")
        for left in set(rows) - before:
            assert wrenn(data_dir, "exec", left, "--", "true").returncode == 0
            assert wrenn(data_dir, "kill", left).returncode == 0
