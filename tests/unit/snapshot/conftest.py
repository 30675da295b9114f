"""Snapshots are synced at every turn, so these tests work in memory; tests/root has real disks."""

import tempfile
from pathlib import Path

import pytest

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path():
    with tempfile.TemporaryDirectory(
        dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None, prefix="wrenn-test-"
    ) as path:
        yield Path(path)
