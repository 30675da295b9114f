"""Boots the lab host and runs the tests that are for it: a smoke set, and all.

What they print is this test's output. A Firecracker for them is named by WRENN_LAB_FIRECRACKER.
"""

import os
import sys
from pathlib import Path

import pytest

from lab_host import order, session

pytestmark = pytest.mark.lab_host

SMOKE_S = 600
PART_S = 3 * 3600
# Directories below tests/ with tests for the lab; each is a boot of its own.
PARTS = ("lab", "contract/vmm", "contract/storage", "root", "vm")


def run_inside(*arguments, timeout_s):
    given = os.environ.get("WRENN_LAB_FIRECRACKER")
    wanted = order.pytest_order(arguments, Path(given) if given else None)
    return session.run(wanted, timeout_s=timeout_s, show=show, report=print)


def show(data):
    """As it comes, for who watches; and captured, for who is told of a failure."""
    sys.stdout.write(data.decode(errors="replace"))
    sys.stdout.flush()


@pytest.mark.timeout(SMOKE_S + 900)  # the first time the disk is built
def test_smoke():
    done = run_inside("-m", "lab and smoke", "-v", timeout_s=SMOKE_S)
    assert done.exit_code == 0, f"logs: {done.directory}"


@pytest.mark.timeout(PART_S + 900)
@pytest.mark.parametrize("part", PARTS)
def test_everything(part):
    done = run_inside("-v", f"tests/{part}", timeout_s=PART_S)
    assert done.exit_code == 0, f"logs: {done.directory}"
