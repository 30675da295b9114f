"""Drive the installed `wrenn` as a user's shell would."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

WRENN = Path(sys.executable).with_name("wrenn")
TIMEOUT_S = 150


def environment(data_dir, **extra):
    plain = {"PATH": os.environ["PATH"], "HOME": "/root", "LANG": "C.UTF-8"}
    return plain | {"WRENN_DATA_DIR": os.fspath(data_dir)} | extra


def wrenn(data_dir, *args, stdin=b"", env=None, cwd=None):
    """Run to the end; a CompletedProcess with text outputs."""
    done = subprocess.run(
        [WRENN, *args],
        input=stdin,
        capture_output=True,
        env=environment(data_dir, **(env or {})),
        cwd=cwd,
        timeout=TIMEOUT_S,
        check=False,
    )
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    return done


@contextmanager
def running(data_dir, *args):
    """A `wrenn` that goes on while the test does something to it."""
    with subprocess.Popen(
        [WRENN, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(data_dir),
    ) as child:
        try:
            yield child
        finally:
            child.kill()
