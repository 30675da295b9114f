"""Counters and durations, written as one JSON object a line: when the guest starts, every minute
from then on, on FlushMetrics, and at the end.

A subset of Firecracker's: the groups that exist here have its names. Counts are those since the
line before, durations the last one.
"""

import math
import os
import time
from collections import Counter

from wrennd.qemu_vmm.faults import Fault, Prefix, os_text
from wrennd.qemu_vmm.json_writer import to_json
from wrennd.qemu_vmm.resources import Metrics
from wrennd.qemu_vmm.sinks import open_output

PERIOD_S = 60.0

_GROUPS: dict[str, tuple[str, ...]] = {
    "deprecated_api": ("deprecated_http_api_calls",),
    "get_api_requests": ("instance_info_count", "machine_cfg_count", "vmm_version_count"),
    "logger": ("metrics_fails", "missed_log_count", "missed_metrics_count"),
    "patch_api_requests": ("count", "fails"),
    "put_api_requests": ("count", "fails"),
    "uart": ("missed_write_count", "write_count"),
}
_DURATIONS = (
    *("full_create_snapshot", "diff_create_snapshot", "load_snapshot"),
    *("pause_vm", "resume_vm", "start_vm"),
    *("vmm_full_create_snapshot", "vmm_diff_create_snapshot", "vmm_load_snapshot"),
    *("vmm_pause_vm", "vmm_resume_vm"),
)


class Recorder:
    """Counts, and writes once a path is set. Owns the descriptor of that file."""

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at
        self._counts: Counter[tuple[str, str]] = Counter()
        self._durations_us = dict.fromkeys(_DURATIONS, 0)
        self._fd = -1
        self._due = math.inf

    def count(self, group: str, name: str, by: int = 1) -> None:
        assert name in _GROUPS[group]
        self._counts[group, name] += by

    def took(self, name: str, seconds: float) -> int:
        """Remember a duration; returns it in microseconds."""
        assert name in self._durations_us
        self._durations_us[name] = round(seconds * 1e6)
        return self._durations_us[name]

    def open(self, config: Metrics) -> None:
        """Begin writing. Errors: Fault when it is the second time, or the file can't be opened."""
        problem = f"{Prefix.METRICS}Cannot initialize the metrics system due to bad user input: "
        try:
            fd = open_output(config.metrics_path)
        except (OSError, ValueError) as error:
            text = os_text(error) if isinstance(error, OSError) else str(error)
            raise Fault(problem + text) from None
        if self._fd >= 0:
            os.close(fd)
            raise Fault(problem + "Reinitialization of metrics not allowed.")
        self._fd = fd

    def begin(self) -> None:
        """The guest runs: write a line now, and every minute from now on."""
        self._due = time.monotonic()
        self.write_if_due()

    def write(self) -> None:
        """Write a line if there is a file for it. Never waits, never raises."""
        if self._fd < 0:
            return
        line = to_json(self._line()) + b"\n"
        try:
            written = os.write(self._fd, line)
        except OSError:
            written = 0
        if written == len(line):
            self._counts.clear()
        else:
            self.count("logger", "missed_metrics_count")

    def write_if_due(self) -> float:
        """Write when a minute is over; returns the seconds after which to look again."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + PERIOD_S
            self.write()
        return min(PERIOD_S, max(0.0, self._due - now))

    def _line(self) -> dict[str, object]:
        line: dict[str, object] = {"utc_timestamp_ms": time.time_ns() // 10**6}
        line["api_server"] = {
            "process_startup_time_us": round((time.monotonic() - self._started_at) * 1e6)
        }
        for group, names in _GROUPS.items():
            line[group] = {name: self._counts[group, name] for name in names}
        line["latencies_us"] = self._durations_us
        return line

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
