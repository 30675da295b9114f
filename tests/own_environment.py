"""Virtual environments for programs that are not ours, made from PyPI by a test that runs them."""

import os
import sys
from pathlib import Path

import pytest

from wrennd.linux import process

PIP_TIMEOUT_S = 300


def make(directory: Path, *requirements: str) -> Path:
    """An environment with these in it; returns its interpreter.

    Where PyPI can't be reached the test is skipped, and says so; on CI it fails.
    """
    python = directory / "bin" / "python"
    process.run([sys.executable, "-m", "venv", directory], timeout_s=PIP_TIMEOUT_S)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = process.run([*pip, *requirements], timeout_s=PIP_TIMEOUT_S, check=False)
    if done.returncode != 0:
        words = f"pip could not install {' '.join(requirements)}: {done.stderr.strip()[-500:]}"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    return python
