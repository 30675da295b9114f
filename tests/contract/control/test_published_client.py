"""The published client of the older API works against ours, in an environment of its own."""

import sys
from pathlib import Path

import pytest

from wrennd.core.config import host_environment
from wrennd.linux import process

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
VERSION = "0.3.0"
SCRIPT = Path(__file__).parents[2] / "published_client.py"


def done(*argv):
    # pip's settings and proxies are in the environment.
    return process.run(argv, timeout_s=300, env=host_environment(), check=False)


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory):
    """It asks for a newer Python than it needs."""
    folder = tmp_path_factory.mktemp("client")
    made = done(sys.executable, "-m", "venv", folder)
    assert made.returncode == 0, made.stderr
    wanted = ("install", "-q", "--ignore-requires-python", f"wrenn=={VERSION}")
    installed = done(folder / "bin/pip", *wanted)
    assert installed.returncode == 0, installed.stderr
    return folder / "bin/python"


def test_all_of_it(server, interpreter):
    ran = done(interpreter, SCRIPT, server.url, server.key, "minimal")
    assert ran.returncode == 0, ran.stderr
