"""Whether this host has room for a sandbox. Looked up when asked; nothing is reserved here."""

import re
from pathlib import Path

from wrennd.core.errors import NoCapacity

# What a VMM takes besides its guest's memory. Measured with QEMU and one vCPU: 64 MiB translation
# cache, 45 MiB of its own and 15 MiB of qemu_vmm; its cgroup counts the disk's page cache, too.
VMM_OVERHEAD_MIB = 256


def available_mib(meminfo: str) -> int:
    """MemAvailable of /proc/meminfo."""
    return _mib_of("MemAvailable", meminfo)


def total_mib() -> int:
    """What this host has."""
    return _mib_of("MemTotal", Path("/proc/meminfo").read_text())


def _mib_of(name: str, meminfo: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", meminfo, re.MULTILINE)
    if found is None:
        raise ValueError(f"/proc/meminfo has no {name}")
    return int(found[1]) // 1024


def check_memory(mem_mib: int, meminfo: str | None = None, *, coming_mib: int = 0) -> None:
    """coming_mib: what others that are being made have not taken yet.

    Errors: NoCapacity when the host has less available than the sandbox may come to use.
    """
    text = Path("/proc/meminfo").read_text() if meminfo is None else meminfo
    there = available_mib(text) - coming_mib
    if mem_mib + VMM_OVERHEAD_MIB > there:
        raise NoCapacity(
            f"a sandbox of {mem_mib} MiB does not fit: this host has {there} MiB available",
            hint=f"choose a smaller --memory; {VMM_OVERHEAD_MIB} MiB go to the VMM itself",
        )
