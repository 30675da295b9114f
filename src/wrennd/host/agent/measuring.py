"""What sandboxes that run use: sampled every few seconds, kept in a bounded ring. In memory.

From any thread; `sample` is called by one.
"""

import contextlib
import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from wrennd.core.states import State
from wrennd.host import unmake
from wrennd.host.agent.activity import now_ms
from wrennd.host.agent.catalogue import Catalogue
from wrennd.host.record import Record
from wrennd.linux.cgroup import Cgroup, Hierarchy
from wrennd.storage.layout import Layout
from wrennd.storage.usage import disk_usage

SAMPLE_S = 5.0
POINTS = 720
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One sample. cpu_percent: of one CPU, since the last sample."""

    unix_ms: int
    cpu_percent: float
    mem_bytes: int
    disk_bytes: int


@dataclass
class _Ring:
    """The points of one sandbox, and its CPU time at the last (seconds, and when)."""

    points: "deque[Point]" = field(default_factory=lambda: deque(maxlen=POINTS))
    cpu_s: float | None = None
    at: float = 0.0


class Measuring:
    """The samples of one installation's sandboxes."""

    def __init__(self, layout: Layout, catalogue: Catalogue) -> None:
        self._layout = layout
        self._catalogue = catalogue
        # Guards both.
        self._lock = threading.Lock()
        self._rings: dict[str, _Ring] = {}
        self._disk: dict[str, tuple[int, int]] = {}

    def sample(self) -> None:
        """One point for each that runs. What a destroyed one had is forgotten."""
        records = self._catalogue.records()
        there = {found.id for found in records}
        hierarchy = Hierarchy.find()
        for found in records:
            if found.state is State.RUNNING:
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended
                    self._sample(found, hierarchy)
        with self._lock:
            for kept in (self._rings, self._disk):
                for gone in kept.keys() - there:
                    del kept[gone]

    def _sample(self, found: Record, hierarchy: Hierarchy | None) -> None:
        group = None
        if hierarchy is not None:
            group = hierarchy.group(unmake.group_name(self._layout), found.id)
        cpu_s, mem_bytes = _used(found, group)
        disk_bytes = disk_usage(self._layout.sandbox(found.id).data)
        at = time.monotonic()
        with self._lock:
            ring = self._rings.setdefault(found.id, _Ring())
            percent = 0.0
            if ring.cpu_s is not None and cpu_s >= ring.cpu_s and at > ring.at:
                percent = 100 * (cpu_s - ring.cpu_s) / (at - ring.at)
            ring.cpu_s, ring.at = cpu_s, at
            self._disk[found.id] = (found.revision, disk_bytes)
            ring.points.append(
                Point(
                    unix_ms=now_ms(),
                    cpu_percent=round(percent, 1),
                    mem_bytes=mem_bytes,
                    disk_bytes=disk_bytes,
                )
            )

    def points(self, sandbox_id: str, seconds: int) -> list[Point]:
        """Of so many last seconds, 0: all that are kept; oldest first."""
        since = now_ms() - seconds * 1000 if seconds else 0
        with self._lock:
            ring = self._rings.get(sandbox_id)
            return [] if ring is None else [one for one in ring.points if one.unix_ms >= since]

    def disk_bytes(self, found: Record) -> int:
        """What its directory takes: measured anew when its state has changed."""
        with self._lock:
            kept = self._disk.get(found.id)
        if kept is not None and kept[0] == found.revision:
            return kept[1]
        measured = disk_usage(self._layout.sandbox(found.id).data)
        with self._lock:
            self._disk[found.id] = (found.revision, measured)
        return measured


def _used(found: Record, group: Cgroup | None) -> tuple[float, int]:
    """CPU seconds since its VM was made, and bytes of memory: of its cgroup, as far as that has
    what counts them, else of its processes."""
    cpu_s = None if group is None else _cpu_of(group.path)
    mem = None if group is None else _number(group.path / "memory.current")
    if cpu_s is None or mem is None:
        pids = [] if group is None else group.pids()
        if not pids:
            pids = [pid for pid in (found.vmm_pid, found.pager_pid) if pid is not None]
        used = [_of_process(pid) for pid in pids]
        cpu_s = sum(cpu for cpu, _ in used) if cpu_s is None else cpu_s
        mem = sum(resident for _, resident in used) if mem is None else mem
    return cpu_s, mem


def _cpu_of(group: Path) -> float | None:
    try:
        lines = (group / "cpu.stat").read_text().splitlines()
    except FileNotFoundError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("usage_usec ")]
    return int(found[0]) / 1e6 if found else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return None


def _of_process(pid: int) -> tuple[float, int]:
    """CPU seconds and resident bytes; nothing of one that has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0
    fields = stat[stat.rindex(b")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE
