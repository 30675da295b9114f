"""The pager's world: a compiled stand-in for a VMM, a run directory, snapshots."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from leaks import LeakCheck
from pager_guest import compiled, run_directory


@pytest.fixture(scope="session")
def program() -> Iterator[Path]:
    """`vmm_memory`, where any uid can execute it."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    made.chmod(0o755)
    yield compiled(made)
    shutil.rmtree(made)


@pytest.fixture
def run_dir(leak_check: LeakCheck) -> Iterator[Path]:
    with run_directory() as made:
        leak_check.watch("-none-", made)
        yield made
