"""Tiers and shards: how long each tier took beside its budget, and which long tests run today.

A pytest plugin (loaded by conftest.py). A test's tier is its directory below tests/, but for
contract tests, which start the real thing: vm when that boots guests, else root. Those in lab/ run
only inside the lab host, which lab_host/ boots. `--shard I/N` keeps every Nth of the long tests,
beginning with the Ith (from 0), by name.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
IS_LAB = bool(os.environ.get("WRENN_LAB"))  # set by lab_host/inside/init.sh
# Minutes on two cores (DESIGN.md section 8). Printed, not enforced: machines are noisy.
BUDGET_MIN = {"unit": 1, "root": 4, "vm": 10, "lab": 10, "e2e": 5}
SECONDS: Counter = Counter()  # of this session
IN_LAB: list = []  # what runs of the lab host said of their tests


def pytest_addoption(parser):
    parser.addoption("--shard", metavar="I/N", help="run only part I of N of the long tests")


def pytest_ignore_collect(collection_path, config):
    """Inside the lab, importing what has no test that is wanted would take minutes, and may need
    what is not there."""
    if not IS_LAB:
        return None
    mark = "smoke" if "smoke" in config.option.markexpr else "lab"
    if collection_path.is_dir():
        files = collection_path.rglob("test_*.py")
        return None if any(speaks_of(mark, path) for path in files) else True
    if collection_path.name.startswith("test_") and not speaks_of(mark, collection_path):
        return True
    return None


def speaks_of(mark, path):
    """Whether a file of tests, or the conftest.py beside it, gives some of them this mark."""
    if mark == "lab" and path.parent == TESTS / "lab":
        return True
    files = [path, path.with_name("conftest.py")]
    return any(f"pytest.mark.{mark}" in found.read_text() for found in files if found.is_file())


def tier_of(item):
    directory = directory_of(item)
    if directory != "contract":
        return "lab" if directory == "lab_host" else directory
    return "vm" if item.get_closest_marker("vm") else "root"


def directory_of(item):
    return item.path.relative_to(TESTS).parts[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in items:
        tier = tier_of(item)
        item.user_properties.append(("tier", tier))
        if tier in ("root", "vm", "e2e"):
            item.add_marker(getattr(pytest.mark, tier))
        if directory_of(item) == "lab":
            item.add_marker(pytest.mark.lab)
    if not IS_LAB:
        keep(config, items, [item for item in items if directory_of(item) != "lab"])
    if shard := config.getoption("--shard"):
        part, count = (int(number) for number in shard.split("/"))
        long = [item for item in items if item.get_closest_marker("long")]
        kept = sorted(long, key=lambda item: item.nodeid)[part::count]
        keep(config, items, kept)


def keep(config, items, kept):
    gone = set(items) - set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item in gone])
    items[:] = kept


def pytest_runtest_logreport(report):
    told = dict(report.user_properties)
    if "tier" in told:
        SECONDS[told["tier"]] += report.duration
    if "lab" in told and report.when == "call":
        IN_LAB.append(told["lab"])


def pytest_terminal_summary(terminalreporter, config):
    workers = config.getoption("numprocesses", None) or 1
    for tier, seconds in sorted(SECONDS.items()):
        budget = BUDGET_MIN.get(tier)
        said = f" of {budget * 60} s" if budget else ""
        said += f", {workers} at a time" if workers > 1 else ""
        terminalreporter.write_line(f"tier {tier}: {seconds:.0f} s{said}")
    for line in IN_LAB:
        terminalreporter.write_line(f"in the lab host, {line}")
