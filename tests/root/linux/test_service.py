"""A part of the server without rights, and its way to what it needs."""

import os
import sys

import pytest

from wrennd.core.deadline import Deadline
from wrennd.linux import process, service

NOBODY = 65534
TIMEOUT_S = 30


@pytest.fixture
def closed(tmp_path):
    """A directory that only root may pass, with a file below it that anybody may read."""
    directory = tmp_path / "closed"
    (directory / "deep").mkdir(parents=True)
    directory.chmod(0o700)
    (directory / "deep/file").write_text("read\n")
    (directory / "secret").write_text("not shown\n")
    return directory


def run(*argv, **description):
    wanted = service.Description(
        argv=argv,
        env=process.CLEAN_ENVIRONMENT,
        cwd="/",
        parent=os.getpid(),
        uid=NOBODY,
        gid=NOBODY,
        **description,
    )
    wrapper = service.argv(os.path.realpath(sys.executable), wanted)
    with process.spawn(wrapper, stdout=process.PIPE, stderr=process.PIPE) as child:
        said = child.stdout.read().decode(), child.stderr.read().decode()
        return child.wait(Deadline.after(TIMEOUT_S)), *said


def test_it_has_no_rights():
    code, said, _ = run("/bin/cat", "/proc/self/status")
    assert code == 0
    status = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    assert status["Uid"].split() == [str(NOBODY)] * 4
    assert status["Gid"].split() == [str(NOBODY)] * 4
    assert status["Groups"].strip() == ""
    assert status["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0


def test_it_gets_to_what_it_needs_and_to_nothing_else(closed):
    file = os.fspath(closed / "deep/file")
    assert run("/bin/cat", file)[0] != 0
    hide, show = service.way([closed / "deep"])
    assert run("/bin/cat", file, hide=hide, show=show)[:2] == (0, "read\n")
    code, said, why = run("/bin/cat", os.fspath(closed / "secret"), hide=hide, show=show)
    assert (code != 0, said) == (True, "")
    assert "No such file" in why
    assert run("/bin/sh", "-c", f"echo x > {file}", hide=hide, show=show)[0] != 0


def test_it_ends_with_its_parent():
    code, _, why = run("/bin/true")
    assert (code, why) == (0, "")
    wanted = service.Description(
        argv=("/bin/true",), env={}, cwd="/", parent=1, uid=NOBODY, gid=NOBODY
    )
    wrapper = service.argv(os.path.realpath(sys.executable), wanted)
    with process.spawn(wrapper, stderr=process.PIPE) as child:
        assert b"the parent died" in child.stderr.read()
        assert child.wait(Deadline.after(TIMEOUT_S)) == 126
