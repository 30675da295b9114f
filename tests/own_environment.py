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
    # A pip of its own would take longer to install than what is asked for.
    process.run([sys.executable, "-m", "venv", "--without-pip", directory], timeout_s=60)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
    # With what the environment says of proxies and indexes.
    done = process.run(
        [*pip, "--disable-pip-version-check", *requirements],
        timeout_s=PIP_TIMEOUT_S,
        env=dict(os.environ),
        check=False,
    )
    if done.returncode != 0:
        words = f"pip could not install {' '.join(requirements)}: {done.stderr.strip()[-500:]}"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    return python
