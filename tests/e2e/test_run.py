"""`wrenn run` as its users see it: output, exit codes, files, signals, and nothing left behind."""

import json
import os
import signal
import subprocess

import pytest

from wrenn_command import WRENN, environment, running


def test_hello_from_the_base_image(run):
    done = run("--", "echo", "hello", template="base")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")


def test_the_default_template_is_debian_with_python_git_and_sudo(data_dir):
    from wrenn_command import wrenn

    script = (
        "set -e; . /etc/os-release; echo $ID $VERSION_ID; id -un; echo $HOME; sudo id -un; "
        "python -c 'print(6*7)'; git --version; curl --version | head -1; pip --version; "
        "which git-daemon || ls /usr/lib/git-core/git-daemon; ps --version; tput -V"
    )
    done = wrenn(data_dir, "run", "--", "bash", "-lc", script)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:5] == ["debian 12", "user", "/home/user", "root", "42"]


def test_streams_are_apart_and_the_exit_code_is_the_commands(run):
    done = run("--", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, "out\n", "err\n")


def test_a_command_killed_by_a_signal(run):
    assert run("--", "sh", "-c", "kill -9 $$").returncode == 128 + 9


def test_stdin_only_with_i(run):
    assert run("-i", "--", "cat", stdin=b"typed\n").stdout == "typed\n"
    assert run("--", "cat", stdin=b"typed\n").stdout == ""


def test_much_output_and_much_input_come_through_whole(run):
    data = os.urandom(1 << 20).hex().encode()
    done = run("-i", "--", "sh", "-c", "tee /tmp/f | md5sum; wc -c < /tmp/f", stdin=data)
    import hashlib

    assert done.stdout.split() == [hashlib.md5(data).hexdigest(), "-", str(len(data))]


def test_environment_from_file_and_flags_directory_and_user(run, tmp_path):
    (tmp_path / "env").write_text("# comment\nA=from file\nB=from file\n\n")
    done = run(
        *("--env-file", str(tmp_path / "env"), "--env", "B=from flag", "--env", "C=x=y"),
        *("--cwd", "/tmp", "--user", "root"),
        *("--", "sh", "-c", 'echo "$A,$B,$C,$(pwd),$(id -u)"'),
    )
    assert done.stdout == "from file,from flag,x=y,/tmp,0\n"


def test_the_guest_is_named_after_the_sandbox_and_has_what_was_asked_for(run):
    script = "hostname; nproc; awk '/MemTotal/ {print $2}' /proc/meminfo"
    done = run("--vcpus", "2", "--memory", "256", "--", "sh", "-c", script)
    name, cpus, kib = done.stdout.split()
    assert (len(name), cpus) == (20, "2")
    assert 200_000 < int(kib) <= 256 * 1024


def test_copies_of_files_and_trees(run, tmp_path):
    (tmp_path / "tree/sub/empty").mkdir(parents=True)
    (tmp_path / "tree/sub/tool").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "tree/sub/tool").chmod(0o750)
    (tmp_path / "tree/link").symlink_to("sub/tool")
    (tmp_path / "one").write_bytes(b"\0\xff1")
    done = run(
        *("--copy", f"{tmp_path}/tree:/home/user/dst", "--copy", f"{tmp_path}/one:in/one"),
        *("--", "sh", "-c"),
        "cd dst && ./link && stat -c '%a %U' sub/tool && ls -d sub/empty && od -An -tx1 ../in/one",
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["ran", "750", "user", "sub/empty", "00", "ff", "31"]


def test_json_and_timings(run):
    done = run("--json", "--cold", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    told = json.loads(done.stdout)
    assert done.returncode == told["exit_code"] == 3
    assert (told["stdout"], told["stderr"]) == ("out\n", "err\n")
    phases = told["timings_ms"]
    assert list(phases) == [
        *("prepare", "network", "disk", "vmm_start", "vmm_configure", "vmm_boot"),
        *("guest", "copy", "command"),
    ]
    assert 0 < sum(phases.values()) <= told["total_ms"]
    timed = run("--timings", "--cold", "--", "true")
    assert timed.stdout == ""
    assert all(name in timed.stderr for name in (*phases, "total"))


def test_a_timeout_is_124(run):
    done = run("--timeout", "1", "--json", "--", "sleep", "1000")
    assert done.returncode == json.loads(done.stdout)["exit_code"] == 124
    assert "1 s" in done.stderr


def started(child):
    """Wait for the guest's word: it runs."""
    assert child.stdout.readline() == b"up\n"


def test_ctrl_c_cleans_up(data_dir):
    with running(
        data_dir, "run", "--template", "busybox", "--", "sh", "-c", "echo up; sleep 1000"
    ) as child:
        started(child)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
        assert b"Traceback" not in child.stderr.read()


def test_sigterm_cleans_up(data_dir):
    with running(
        data_dir, "run", "--template", "busybox", "--", "sh", "-c", "echo up; sleep 1000"
    ) as child:
        started(child)
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 143


def test_ctrl_c_while_the_guest_boots(data_dir, layout):
    with running(data_dir, "run", "--template", "busybox", "--", "true") as child:
        wait_for_vmm(layout)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130


def wait_for_vmm(layout):
    from wrennd.core.deadline import Deadline

    deadline = Deadline.after(60)
    while not list(layout.run_dir.glob("*/api.sock")):
        deadline.check("the start of a VMM")


def test_killed_outright_its_sandbox_goes_with_it(data_dir):
    """The leak check at the end of every test is the assertion here: the guard undoes it all."""
    with running(
        data_dir, "run", "--template", "busybox", "--", "sh", "-c", "echo up; sleep 1000"
    ) as child:
        started(child)
        child.kill()
        assert child.wait(60) == -signal.SIGKILL


def test_a_reader_that_leaves_ends_the_command(data_dir):
    with running(data_dir, "run", "--template", "busybox", "--", "yes") as child:
        assert child.stdout.read(4) == b"y\ny\n"
        child.stdout.close()
        assert child.wait(60) == 128 + signal.SIGPIPE


def test_a_second_ctrl_c_does_not_interrupt_the_clean_up(data_dir):
    with running(
        data_dir, "run", "--template", "busybox", "--", "sh", "-c", "echo up; sleep 1000"
    ) as child:
        started(child)
        for _ in range(200):
            child.send_signal(signal.SIGINT)
            child.send_signal(signal.SIGTERM)
        assert child.wait(60) in (130, 143)


def test_a_timeout_is_kept_when_nobody_reads_what_keeps_coming(data_dir):
    with running(data_dir, "run", "--template", "busybox", "--timeout", "2", "--", "yes") as child:
        assert child.stdout.read(4) == b"y\ny\n"
        assert child.wait(60) == 124


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_matter(data_dir, closed):
    done = shell(data_dir, f'"$0" run --template busybox -- sh -c "exit 7" {closed}')
    assert done.returncode == 7, done.stderr
    assert b"Traceback" not in done.stderr


def test_stdin_that_is_closed_is_at_its_end(data_dir):
    done = shell(data_dir, '"$0" run --template busybox -i -- sh -c "cat; echo end" <&-')
    assert (done.returncode, done.stdout) == (0, b"end\n")


def test_output_that_can_not_be_written_is_said_in_one_sentence(data_dir):
    done = shell(data_dir, '"$0" run --template busybox -- echo hello > /dev/full')
    assert done.returncode == 125
    assert b"output can't be written: No space left" in done.stderr
    assert b"Traceback" not in done.stderr


def shell(data_dir, script):
    return subprocess.run(
        ["bash", "-c", script, WRENN],
        capture_output=True,
        env=environment(data_dir),
        timeout=150,
        check=False,
    )


def test_ignored_hangups_stay_ignored(data_dir):
    with running_nohup(data_dir) as child:
        started(child)
        child.send_signal(signal.SIGHUP)
        child.stdin.write(b"go\n")
        child.stdin.close()
        assert child.wait(60) == 5


def running_nohup(data_dir):
    command = ["nohup", WRENN, "run", "--template", "busybox", "-i", "--"]
    return subprocess.Popen(
        [*command, "sh", "-c", "echo up; read x; exit 5"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(data_dir),
    )
