import time
from pathlib import Path

from wrennd.linux.tsc import tsc_khz


def test_two_measurements_agree() -> None:
    first, second = tsc_khz(0.002), tsc_khz(0.002)
    assert first > 100_000  # no x86 with a constant counter runs below 100 MHz
    assert abs(first - second) < first / 1000


def test_it_leaves_no_mapping_behind() -> None:
    def executable_mappings() -> int:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return sum("rwxp" in line for line in lines)

    before = executable_mappings()
    tsc_khz(0.001)
    assert executable_mappings() == before


def test_it_takes_about_the_interval_asked_for() -> None:
    start = time.monotonic()
    tsc_khz(0.001)
    assert time.monotonic() - start < 20
