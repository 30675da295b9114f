"""Measure boot and exec: medians of N (min, max), beside a bare QEMU that boots the same guest.

Phases come from the console, watched as it is written: the VMM is started (0), the kernel is
started (InstanceStart answered), init says "started", envd says "listening". The bare boot is a
`qemu-system-x86_64` command line with the same kernel, initrd, disk and memory, without our server,
confinement or network namespace. The bound that must hold is a ratio within this one run:
boot to envd <= 1.3 x bare boot to envd + 0.5 s. Exits with 1 when it does not.
"""

import argparse
import os
import select
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

from built_images import prepared_layout
from wrennd.core.config import Config
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxRequest
from wrennd.core.sandboxes import Exit
from wrennd.core.timings import Timings
from wrennd.host.boot_args import BASE
from wrennd.host.local import LocalSandbox, LocalSandboxes
from wrennd.linux import files
from wrennd.linux.tsc import tsc_khz
from wrennd.storage.images import ImageStore

INIT, ENVD = "wrenn-init: started", "envd: listening"
LIMIT_RATIO, LIMIT_EXTRA_S = 1.3, 0.5
MEM_MIB = 512
BARE_TIMEOUT_S = 120


class Marks:
    """When each line of interest first appeared in a stream of console text."""

    def __init__(self) -> None:
        self._text = ""
        self.at: dict[str, float] = {}

    def feed(self, text: str) -> bool:
        """True when the last one is there."""
        self._text += text
        for mark in (INIT, ENVD):
            if mark not in self.at and mark in self._text:
                self.at[mark] = time.monotonic()
        return ENVD in self.at


def bare_command(kernel: Path, initrd: Path, disk: Path) -> list[str]:
    """What anyone would type; the same machine and devices as ours but for the network."""
    return [
        "qemu-system-x86_64",
        *("-M", "microvm", "-accel", "tcg,thread=multi,tb-size=64", "-cpu", "max"),
        *("-m", str(MEM_MIB), "-smp", "1"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-serial", "stdio", "-kernel", os.fspath(kernel), "-initrd", os.fspath(initrd)),
        *("-append", f"{BASE} tsc_early_khz={tsc_khz()}"),
        *("-drive", f"id=d,file={disk},format=raw,if=none,cache=unsafe"),
        *("-device", "virtio-blk-device,drive=d"),
        *("-object", "rng-random,id=r,filename=/dev/urandom"),
        *("-device", "virtio-rng-device,rng=r"),
    ]


def bare_boot(images: ImageStore, directory: Path) -> dict[str, float]:
    """One boot of the base image by QEMU alone: seconds from its start to envd."""
    kernel, image = images.kernel(), images.find("base")
    disk = directory / "disk"
    with image.rootfs.open("rb") as source, disk.open("wb") as target:
        files.copy_sparse(source.fileno(), target.fileno())
    marks = Marks()
    started = time.monotonic()
    with subprocess.Popen(
        bare_command(kernel.vmlinux, kernel.initrd, disk),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as qemu:
        try:
            assert qemu.stdout is not None
            while select.select([qemu.stdout], [], [], BARE_TIMEOUT_S)[0]:
                data = os.read(qemu.stdout.fileno(), 65536)
                if not data:
                    raise RuntimeError("the bare guest ended before its agent was ready")
                if marks.feed(data.decode(errors="replace")):
                    break
            else:
                raise RuntimeError(f"the bare guest was silent for {BARE_TIMEOUT_S} s")
        finally:
            qemu.kill()
    disk.unlink()
    return {"bare boot to envd": marks.at[ENVD] - started}


class ConsoleWatcher:
    """Reads a console file as it grows, in a thread, until envd has spoken or `stop`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marks = Marks()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._path.exists():
            if self._stop.wait(0.002):
                return
        with self._path.open(errors="replace") as console:
            while not self._marks.feed(console.read()):
                if self._stop.wait(0.002):
                    self._marks.feed(console.read())  # what came before the stop
                    return

    def stop(self) -> dict[str, float]:
        self._stop.set()
        self._thread.join()
        return self._marks.at


def our_boot(sandboxes: LocalSandboxes) -> dict[str, float]:
    """One sandbox: boot, first exec, ten more execs, destroy; seconds of each part."""
    spec = SandboxRequest(id=new_sandbox_id(), mem_mib=MEM_MIB, is_cold=True)
    timings = Timings()
    watcher = ConsoleWatcher(sandboxes.layout.sandbox(spec.id).console)
    started = time.monotonic()
    with sandboxes.temporary(spec, timings) as sandbox:
        at = watcher.stop()
        run_echo(sandbox)
        first = time.monotonic()
        for _ in range(10):
            run_echo(sandbox)
        last = time.monotonic()
    ended = time.monotonic()
    vmm_started = timings.ended_at["vmm_start"] - timings.phases_ms["vmm_start"] / 1000
    return {
        "make slot, disk, records": vmm_started - started,
        "VMM start to kernel": timings.ended_at["vmm_boot"] - vmm_started,
        "kernel to init": at[INIT] - timings.ended_at["vmm_boot"],
        "init to envd": at[ENVD] - at[INIT],
        "boot to envd": at[ENVD] - vmm_started,
        "boot to first exec": first - started,
        "exec round trip": (last - first) / 10,
        "destroy": ended - last,
    }


def run_echo(sandbox: LocalSandbox) -> None:
    with sandbox.start(Command(argv=("echo", "hello"))) as running:
        events = list(running.events())
    if events[-1] != Exit(0):
        raise RuntimeError(f"echo ended with {events[-1]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10, help="boots of each kind (default 10)")
    count = parser.parse_args().n
    layout = prepared_layout()
    rows: dict[str, list[float]] = {}
    sandboxes = LocalSandboxes(Config(data_dir=layout.data_dir), print)
    with tempfile.TemporaryDirectory(dir=layout.data_dir) as directory:
        our_boot(sandboxes)  # page cache, compiled files: not measured
        for _ in range(count):  # alternating, so that a noisy minute hits both
            for row in (bare_boot(ImageStore(layout), Path(directory)), our_boot(sandboxes)):
                for name, seconds in row.items():
                    rows.setdefault(name, []).append(seconds)
    for name, values in rows.items():
        spread = f"({min(values) * 1000:.0f} to {max(values) * 1000:.0f})"
        print(f"{name:>26} {statistics.median(values) * 1000:8.1f} ms  {spread}")
    return judge(*(statistics.median(rows[name]) for name in ("boot to envd", "bare boot to envd")))


def judge(ours: float, bare: float) -> int:
    limit = LIMIT_RATIO * bare + LIMIT_EXTRA_S
    holds = ours <= limit
    print(
        f"boot to envd: {ours / bare:.2f} x the bare boot; limit {LIMIT_RATIO} x bare + "
        f"{LIMIT_EXTRA_S} s = {limit:.2f} s: {'holds' if holds else 'DOES NOT HOLD'}"
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
