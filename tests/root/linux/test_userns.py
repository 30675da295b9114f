"""A child that is root of its own namespace: whatever it may there, it may nothing here."""

import os
import sys

import pytest

from wrennd.linux.process import run
from wrennd.linux.userns import FIRST_HOST_ID

WRAPPER = (sys.executable, "-I", "-m", "wrennd.linux.userns")


@pytest.fixture
def place(tmp_path):
    tmp_path.chmod(0o755)
    made = tmp_path / "place"
    made.mkdir(mode=0o700)
    os.chown(made, FIRST_HOST_ID, FIRST_HOST_ID)
    return made


def inside(place, *argv):
    return run((*WRAPPER, str(os.getpid()), *argv), timeout_s=30, cwd=place, check=False)


def python(place, code):
    return inside(place, "/usr/bin/python3", "-I", "-S", "-c", f"import os\n{code}")


def test_it_gives_files_any_owner_and_on_the_host_they_are_the_ranges(place):
    code = "open('f', 'w').close(); os.chown('f', 1000, 8); os.chmod('f', 0o4755)"
    assert python(place, code).stderr == ""
    found = (place / "f").stat()
    assert (found.st_uid, found.st_gid) == (FIRST_HOST_ID + 1000, FIRST_HOST_ID + 8)
    assert found.st_mode & 0o7777 == 0o4755


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/shadow').read()",
        "open('/etc/written', 'w')",
        "os.mknod('n', 0o20666, os.makedev(1, 3))",
        "os.chown('.', 1 << 24, 0)",
        "os.chroot('.')",
        "os.kill(os.getppid(), 0)",
        "os.fork()",
        "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (9, 9))",
        "bytearray(2 << 30)",
    ],
)
def test_what_it_may_not(place, code):
    done = python(place, code)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        ("PermissionError", "OSError", "BlockingIOError", "ValueError", "MemoryError")
    )


def test_there_is_no_network(place):
    done = python(place, "print(os.listdir('/proc/self/ns') and open('/proc/net/dev').read())")
    assert [line.split(":")[0].strip() for line in done.stdout.splitlines()[2:-1]] == ["lo"]


def test_who_is_no_parent_is_noticed(place):
    done = run((*WRAPPER, "1", "true"), timeout_s=30, cwd=place, check=False)
    assert done.returncode != 0
    assert "parent died" in done.stderr


def test_a_program_that_is_not_there_is_said(place):
    assert "No such file" in inside(place, "nosuchprogram").stderr
