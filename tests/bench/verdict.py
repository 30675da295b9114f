"""What a benchmark prints of its numbers: medians with their spread, ratios beside their limits."""

import os
import statistics
from collections.abc import Iterable


class Samples:
    """Values by name, in the order in which the names came; milliseconds unless said otherwise."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, row: dict[str, float]) -> None:
        for name, value in row.items():
            self._values.setdefault(name, []).append(value)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._values)

    def median(self, name: str) -> float:
        return statistics.median(self._values[name])

    def show(self, title: str, unit: str = "ms", *, share_of: str = "") -> None:
        """share_of: a name, of which each value's share is printed too."""
        print(f"\n{title}")
        for name, values in self._values.items():
            spread = f"({min(values):.0f} to {max(values):.0f}, n {len(values)})"
            median = statistics.median(values)
            share = f"  {median / self.median(share_of):4.0%}" if share_of else ""
            print(f"  {name:<34} {median:8.1f} {unit}{share}  {spread}", flush=True)


def judge(
    what: str, value: float, limit: float, *, unit: str = "x", at_least: bool = False
) -> bool:
    """Print one number beside its limit; whether it holds."""
    holds = value >= limit if at_least else value <= limit
    bound = "at least" if at_least else "at most"
    verdict = "holds" if holds else "DOES NOT HOLD"
    print(f"{what}: {value:.2f} {unit}, {bound} {limit:g} {unit}: {verdict}", flush=True)
    return holds


def show_host() -> None:
    """On a busy host the ratios say little: each half of one meets other neighbours."""
    load, cpus = os.getloadavg()[0], os.cpu_count()
    print(f"{cpus} CPUs, load {load:.1f} before the start")


def all_hold(found: Iterable[bool]) -> int:
    """The exit status; every limit is looked at, and so printed."""
    return 0 if all(list(found)) else 1
