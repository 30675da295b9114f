"""`wrenn pause`, `resume` and `snapshot`, as a user sees them."""

import json
import random
import subprocess

import pytest

from leaks import LeakCheck
from wrenn_command import WRENN, environment, running, wrenn
from wrennd.core.deadline import Deadline

SMALL = ("--template", "busybox", "--memory", "128")


def told(data_dir, *args):
    """What a command prints; it must succeed without a word on stderr."""
    done = wrenn(data_dir, *args)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def listed(data_dir, *args):
    rows = json.loads(told(data_dir, "ls", "--json", *args))["sandboxes"]
    return {row["id"]: row for row in rows}


def assert_clear(done, *words, code=125):
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("wrenn: ")
    for word in words:
        assert word in done.stderr


@pytest.fixture(scope="module")
def shared_world(layout):
    """One sandbox, which runs before and after each test, and a template of it."""
    check = LeakCheck()
    check.watch(layout.installation, layout.sandboxes, layout.templates)
    made = told(layout.data_dir, "create", *SMALL, "--env", "A=frozen").strip()
    told(layout.data_dir, "exec", made, "--", "sh", "-c", "echo memory > /dev/shm/m")
    yield made
    told(layout.data_dir, "kill", made)
    check.finish()
    assert list(layout.templates.glob("*/")) == []


@pytest.fixture
def data_dir(layout):
    """Without a check of its own: what is resumed is another process on another link."""
    return layout.data_dir


@pytest.fixture
def sandbox(shared_world):
    return shared_world


def test_what_is_paused_goes_on_when_it_is_resumed(sandbox, data_dir):
    script = "read before < /dev/shm/m; echo up; sleep 4; echo $before > /dev/shm/after"
    with running(data_dir, "exec", sandbox, "--", "sh", "-c", script) as child:
        assert child.stdout.readline() == b"up\n"
        phases = json.loads(told(data_dir, "pause", sandbox[:6], "--json"))["timings_ms"]
        assert list(phases) == ["freeze", "stop", "write", "disk", "keep", "end", "collapse"]
        assert child.wait(60) == 125
        assert b"the sandbox was paused under its command" in child.stderr.read()
    row = listed(data_dir)[sandbox]
    assert (row["state"], row["address"], row["generation"]) == ("paused", "", 1)
    assert_clear(wrenn(data_dir, "pause", sandbox), "is paused", f"wrenn resume {sandbox}")
    assert_clear(wrenn(data_dir, "exec", sandbox, "--", "true"), "is paused", "wrenn resume")
    assert "is paused" in wrenn(data_dir, "cp", "/etc/hosts", f"{sandbox}:/x").stderr
    answer = json.loads(told(data_dir, "resume", sandbox, "--json"))
    assert answer["how"] == "restored"
    script = "until [ -e /dev/shm/after ]; do sleep 0.1; done; cat /dev/shm/after; echo $A"
    assert told(data_dir, "exec", sandbox, "--", "sh", "-c", script) == "memory\nfrozen\n"
    assert_clear(wrenn(data_dir, "resume", sandbox), "is running", f"wrenn pause {sandbox}")


def test_two_pauses_at_once(sandbox, data_dir):
    children = [
        subprocess.Popen(
            [WRENN, "pause", sandbox],
            stderr=subprocess.PIPE,
            env=environment(data_dir),
            text=True,
        )
        for _ in range(2)
    ]
    said = [child.communicate(timeout=100)[1] for child in children]
    assert sorted(child.returncode for child in children) == [0, 125]
    assert sum("is paused" in text for text in said) == 1
    told(data_dir, "resume", sandbox)


def test_a_template_and_what_is_made_of_it(sandbox, data_dir, layout):
    assert told(data_dir, "snapshot", "create", sandbox, "e2e-template") == ""
    assert listed(data_dir)[sandbox]["state"] == "running"
    (row,) = json.loads(told(data_dir, "snapshot", "ls", "--json"))["snapshots"]
    assert (row["name"], row["vcpus"], row["mem_mib"]) == ("e2e-template", 1, 128)
    assert (
        told(data_dir, "snapshot", "verify", "e2e-template") == "everything is as it was written\n"
    )
    shown = json.loads(told(data_dir, "snapshot", "show", "e2e-template", "--json"))
    assert shown["pages"] == 128 * 256
    assert len(shown["generations"]) >= 1
    made = told(
        data_dir, "create", "--template", "e2e-template", "--count", "2", "--env", "A=new"
    ).split()
    run = ("run", "--template", "e2e-template", "--", "cat", "/dev/shm/m")
    assert told(data_dir, *run) == "memory\n"
    done = wrenn(data_dir, "create", "--template", "e2e-template", "--memory", "256")
    assert_clear(done, "have 128 MiB of memory, not 256")
    told(data_dir, "snapshot", "rm", "e2e-template")
    script = "cat /dev/shm/m; hostname; echo $A; head -c 16 /dev/urandom | od -An -tx1"
    said = [told(data_dir, "exec", one, "--", "sh", "-c", script) for one in (*made, sandbox)]
    lines = [text.split("\n") for text in said]
    assert [line[0] for line in lines] == ["memory"] * 3
    assert [line[1] for line in lines] == [*made, sandbox]
    assert [line[2] for line in lines] == ["new", "new", "frozen"]
    assert len({line[3] for line in lines}) == 3
    told(data_dir, "pause", made[0])
    told(data_dir, "kill", *made)
    assert list(layout.templates.glob("*/")) == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("pause", "a" * 20), ("no sandbox aaaa",)),
        (("snapshot", "create", "ID", "base"), ("'base'",)),
        (("snapshot", "create", "ID", ""), ("not a valid template name",)),
        (("snapshot", "create", "ID", "../x"), ("not a valid template name",)),
        (("snapshot", "create", "ID", "x" * 300), ("not a valid template name",)),
        (("snapshot", "rm", "nosuch"), ("no snapshot template named 'nosuch'",)),
        (("snapshot", "rm", "busybox"), ("no snapshot template named 'busybox'",)),
        (("snapshot", "show", "nosuch"), ("no sandbox nosuch",)),
    ],
)
def test_bad_input(sandbox, data_dir, args, words):
    assert_clear(wrenn(data_dir, *[sandbox if word == "ID" else word for word in args]), *words)


def test_where_nothing_is_nothing_is_made(data_dir, tmp_path):
    nowhere = tmp_path / "data"
    assert_clear(wrenn(nowhere, "pause", "a" * 20), "no data directory")
    assert wrenn(nowhere, "snapshot", "ls").stderr == "there are no snapshot templates\n"
    assert not nowhere.exists()


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment(sandbox, data_dir, seed):
    """Each command has a guard, which brings the sandbox to a state that lasts; nothing is lost."""
    chance = random.Random(seed)
    for _ in range(8):
        for command in ("pause", "resume"):
            with running(data_dir, command, sandbox) as child:
                try:
                    child.wait(chance.uniform(0, 4))
                except subprocess.TimeoutExpired:
                    child.kill()
                child.wait(60)
            deadline = Deadline.after(100)
            while (row := listed(data_dir, "--all")[sandbox])["state"] not in ("running", "paused"):
                assert row["state"] in ("pausing", "resuming")
                deadline.check("the guard's work")
        if listed(data_dir)[sandbox]["state"] == "paused":
            told(data_dir, "resume", sandbox)
        assert told(data_dir, "exec", sandbox, "--", "cat", "/dev/shm/m") == "memory\n"
