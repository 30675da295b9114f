"""Boots the lab host and runs the tests that are for it: a smoke set, and all.

What they print is this test's output, how many there were stands in the session's summary. A
Firecracker for them is named by WRENN_LAB_FIRECRACKER.
"""

import os
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from lab_host import order, session

# On an idle machine it takes a quarter of that; beside other tests, twice as long as alone.
SMOKE_S = 900
# The first time the lab's disk is built, with what Debian and PyPI have to be asked for.
BUILD_S = 900
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


def summary(directory):
    """What a run's junit.xml says, in one line."""
    (suite,) = xml.parse(directory / "results" / "junit.xml").getroot().iter("testsuite")
    bad = int(suite.get("failures")) + int(suite.get("errors"))
    skipped = int(suite.get("skipped"))
    passed = int(suite.get("tests")) - bad - skipped
    seconds = float(suite.get("time"))
    return f"{passed} passed, {skipped} skipped, {bad} failed in {seconds:.0f} s"


def check(done, record_property, part):
    record_property("lab", f"{part}: {summary(done.directory)}")
    assert done.exit_code == 0, f"logs: {done.directory}"


@pytest.mark.lab_host
@pytest.mark.timeout(SMOKE_S + BUILD_S)
def test_smoke(record_property):
    done = run_inside("-m", "lab and smoke", "-v", timeout_s=SMOKE_S)
    check(done, record_property, "smoke")


@pytest.mark.lab_host
@pytest.mark.timeout(PART_S + BUILD_S)
@pytest.mark.parametrize("part", PARTS)
def test_everything(part, record_property):
    done = run_inside("-v", f"tests/{part}", timeout_s=PART_S)
    check(done, record_property, part)
