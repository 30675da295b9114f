"""GET /metrics: processor, memory and disk of the guest, as one JSON object."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.jsontext import Json

MIB = 1 << 20
# Between two looks at the processor; a shorter time says nothing.
MIN_TICKS = 5


class Metrics:
    """Remembers the processor's times, since a share needs two looks: the first is since boot."""

    def __init__(self) -> None:
        self._busy = 0
        self._total = 0
        self._percent = 0.0

    def sample(self) -> dict[str, Json]:
        """Errors: OSError."""
        memory = parse_meminfo(_read("/proc/meminfo"))
        disk = os.statvfs("/")
        total = memory.get("MemTotal", 0)
        used = total - memory.get("MemAvailable", 0)
        return {
            "ts": int(time.time()),
            "cpu_count": os.cpu_count() or 1,
            "cpu_used_pct": self._cpu_percent(_read("/proc/stat")),
            "mem_total": total,
            "mem_used": used,
            "mem_cache": memory.get("Cached", 0) + memory.get("Buffers", 0),
            "mem_total_mib": total // MIB,
            "mem_used_mib": used // MIB,
            "disk_total": disk.f_blocks * disk.f_frsize,
            "disk_used": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
        }

    def _cpu_percent(self, stat: str) -> float:
        """Of all processors together, since the last call."""
        busy, total = parse_stat(stat)
        if total - self._total >= MIN_TICKS:
            share = (busy - self._busy) / (total - self._total)
            self._percent = round(100 * min(1.0, max(0.0, share)), 2)
            self._busy, self._total = busy, total
        return self._percent


def parse_meminfo(text: str) -> dict[str, int]:
    """Bytes by name."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdigit():
            found[name] = int(number[0]) * 1024
    return found


def parse_stat(text: str) -> tuple[int, int]:
    """Ticks that the processors worked, and all of them."""
    user, nice, system, idle, wait, *rest = [
        int(word) for word in text.split("\n", 1)[0].split()[1:9]
    ]
    busy = user + nice + system + sum(rest)
    return busy, busy + idle + wait


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()
