"""Several at once, and many in a row with some killed at any moment: nothing is left."""

import random
import signal
import subprocess
from pathlib import Path

import pytest

from wrenn_command import WRENN, environment, running


def test_three_at_once_do_not_meet(data_dir):
    script = "echo $1 > /home/user/mine; sleep 1; cat /home/user/mine; hostname"
    commands = [
        [WRENN, "run", "--template", "busybox", "--", "sh", "-c", script, "sh", str(number)]
        for number in range(3)
    ]
    children = [
        subprocess.Popen(c, stdout=subprocess.PIPE, env=environment(data_dir)) for c in commands
    ]
    outputs = [child.communicate(timeout=150)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert [output[0] for output in outputs] == [b"0", b"1", b"2"]
    assert len({output[1] for output in outputs}) == 3


def test_what_a_killed_one_left_does_not_hinder_the_next(data_dir, layout):
    """The guard is killed first, so that only the next start can clean up."""
    with running(
        data_dir, "run", "--template", "busybox", "--", "sh", "-c", "echo up; sleep 1000"
    ) as child:
        assert child.stdout.readline() == b"up\n"
        for guard in guards_of(child.pid):
            subprocess.run(["kill", "-KILL", str(guard)], check=True)
        child.kill()
        child.wait(60)
    assert list(layout.sandboxes.glob("*/record.json")), "it should have left its record"
    done = subprocess.run(
        [WRENN, "run", "--template", "busybox", "--", "echo", "next"],
        env=environment(data_dir),
        capture_output=True,
        timeout=150,
        check=False,
    )
    assert done.stdout == b"next\n"


def guards_of(pid):
    """Its children that run the same program: the guard is a fork."""
    own = Path(f"/proc/{pid}/cmdline").read_bytes()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [c for c in children if Path(f"/proc/{c}/cmdline").read_bytes() == own]
    assert found
    return [int(child) for child in found]


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment(data_dir, seed):
    """Ten runs, each killed after a random time by a random signal; the leak check is the proof."""
    chance = random.Random(seed)
    for _ in range(10):
        with running(data_dir, "run", "--template", "busybox", "--", "sleep", "1") as child:
            number = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            try:
                child.wait(chance.uniform(0, 6))
            except subprocess.TimeoutExpired:
                child.send_signal(number)
            assert child.wait(120) in (0, 130, 143, -number, 128 + number)
