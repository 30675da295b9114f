"""How long threads have waited for a CPU: /proc/PID/task/TID/schedstat (CONFIG_SCHED_INFO)."""

from pathlib import Path


def waited_s(pid: int) -> float:
    """Seconds for which the thread of a process that waited longest was ready to run, and did not.

    0 where the kernel does not count that, and of a process that has ended. What a hypervisor took
    from this host is not in it.
    """
    waits = [0]
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            _ran_ns, waited_ns, _slices = file.read_text().split()
        except (FileNotFoundError, ProcessLookupError):  # the thread has ended
            continue
        waits.append(int(waited_ns))
    return max(waits) / 1e9
