"""How fast this host's time-stamp counter runs.

An emulated guest reads the host's counter. On QEMU's microvm its kernel has nothing to measure it
against but the PIT, which it polls; when the host is busy that measurement fails, and since ACPI
there is "hardware reduced" no timer interrupt comes to the rescue: the boot hangs for ever at
"tsc: Marking TSC unstable due to could not calculate TSC khz" (seen with Linux 6.1.192 on QEMU 7.2
in 7 of 12 boots on a loaded host, in none with `tsc_early_khz=` on its command line). With KVM the
kernel learns the frequency from kvm-clock and needs no help.
"""

import ctypes
import mmap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# rdtsc; shl rdx, 32; or rax, rdx; ret
_READ_TSC = b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xc3"
_SAMPLES = 20


def tsc_khz(interval_s: float = 0.01) -> int:
    """The counter's frequency in kHz, measured over `interval_s` (10 ms: within 5 ppm)."""
    with _reader() as read_tsc:
        start_ns, start = _sample(read_tsc)
        time.sleep(interval_s)
        end_ns, end = _sample(read_tsc)
    return round((end - start) * 1_000_000 / (end_ns - start_ns))


@contextmanager
def _reader() -> Iterator[Callable[[], int]]:
    prot = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    with mmap.mmap(-1, mmap.PAGESIZE, prot=prot) as code:
        code.write(_READ_TSC)
        first = ctypes.c_char.from_buffer(code)
        try:
            yield ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(first))
        finally:
            del first  # the mapping can't be closed while something points into it


def _sample(read_tsc: Callable[[], int]) -> tuple[int, int]:
    """(clock in ns, counter), of the attempt that was disturbed least."""
    attempts = []
    for _ in range(_SAMPLES):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        counter = read_tsc()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        attempts.append((after - before, (before + after) // 2, counter))
    return min(attempts)[1:]
