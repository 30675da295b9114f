import os
import signal
import sys

import pytest

from wrennd.core.deadline import Deadline
from wrennd.linux import process

PYTHON = sys.executable


def test_run_keeps_outputs_apart_and_environment_clean():
    done = process.run(
        [PYTHON, "-c", "import os,sys; print(sorted(os.environ)); print('e', file=sys.stderr)"],
        timeout_s=20,
        env={"ONLY": "this"},
    )
    assert "ONLY" in done.stdout
    assert "HOME" not in done.stdout
    assert done.stderr == "e\n"


def test_a_failure_names_the_program_and_its_last_words():
    with pytest.raises(process.CommandFailed, match=r"exited with 3: the reason"):
        process.run(["/bin/sh", "-c", "echo the reason >&2; exit 3"], timeout_s=20)


def test_a_timeout_kills_the_whole_group(tmp_path):
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; wait"
    with pytest.raises(TimeoutError, match="did not end within"):
        process.run(["/bin/sh", "-c", script], timeout_s=0.5)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        _wait_gone(pid)


def _wait_gone(pid):
    """Raises ProcessLookupError once `pid` is gone; an orphan is reaped by init, not by us."""
    pidfd = os.pidfd_open(pid)
    try:
        import select

        assert select.select([pidfd], [], [], 10)[0]
    finally:
        os.close(pidfd)
    raise ProcessLookupError


def test_closing_a_process_kills_it_and_may_be_done_twice():
    child = process.spawn(["/bin/sleep", "1000"])
    assert child.exit_code is None
    assert process.is_alive(child.pid, child.start_time)
    child.close()
    child.close()
    assert not process.is_alive(child.pid, child.start_time)


def test_waiting_for_the_exit_code():
    with process.spawn(["/bin/sh", "-c", "exit 7"]) as child:
        assert child.wait(Deadline.after(20)) == 7
        assert child.wait(Deadline.after(0)) == 7
    with process.spawn(["/bin/sleep", "1000"]) as child:
        assert child.wait(Deadline.after(0)) is None
        child.signal(signal.SIGTERM)
        assert child.wait(Deadline.after(20)) == -signal.SIGTERM


def test_a_pid_with_another_start_time_is_another_process():
    me = os.getpid()
    assert process.is_alive(me, process.start_time(me))
    assert not process.is_alive(me, process.start_time(me) + 1)


def test_the_guard_undoes_when_its_parent_is_killed(tmp_path):
    code = (
        "import os, signal, pathlib\n"
        "from wrennd.linux.process import Guard\n"
        f"Guard(lambda: pathlib.Path({str(tmp_path / 'undone')!r}).write_text('yes'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    watch, end = os.pipe()
    with process.spawn([PYTHON, "-c", code], pass_fds=[end]) as child:
        os.close(end)
        assert child.wait(Deadline.after(20)) == -signal.SIGKILL
    os.close(watch)
    _wait_for(tmp_path / "undone")


def _wait_for(path):
    deadline = Deadline.after(20)
    while not path.exists():
        deadline.check(f"the making of {path}")


def test_a_dismissed_guard_does_nothing(tmp_path):
    code = (
        "import pathlib\n"
        "from wrennd.linux.process import Guard\n"
        f"g = Guard(lambda: pathlib.Path({str(tmp_path / 'undone')!r}).write_text('yes'))\n"
        "g.dismiss(); g.dismiss()\n"
    )
    process.run([PYTHON, "-c", code], timeout_s=20)
    assert not (tmp_path / "undone").exists()
