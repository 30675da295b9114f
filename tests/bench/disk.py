"""Measure disks: what each driver takes to make and unmake one, and what a guest gets of it.

    python tests/bench/disk.py [-n ROUNDS] [--no-guests] [DIRECTORY]

Each driver works on a filesystem of its own kind, in a file in DIRECTORY (/var/tmp): `reflink` on
XFS, the others on ext4, where what is copied is copied indeed. What this host can't do is said. Two
parts, of medians of N that alternate:

- *host*: a disk of the base image; of one that a guest has kept; the same flattened; removed.
  Beside a sparse copy of the base, synced, which is what a disk without any driver costs;
- *guest*: in a guest on a disk of each driver, 4 KiB writes in random order, synced, to blocks that
  were never written and then to the same again, and a sequential read of what the base brought. The
  guest on the driver `copy` has the base file itself, so its numbers are what the others' are
  compared with.

No limits: the ratios of a busy host say little. The lab host (docs/lab.md) has device-mapper.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

from verdict import Samples, show_host

from built_images import prepared_layout
from disks import MIB, Places, sync, write
from kept_sandbox import PYTHON, KeptSandbox
from small_filesystem import on_loop
from wrennd.core.config import Config
from wrennd.host.local import LocalSandboxes
from wrennd.linux import files, process
from wrennd.storage import drivers
from wrennd.storage.images import ImageStore
from wrennd.storage.layout import Layout

VOLUME_MIB = 12288
FILESYSTEM = {"dm": "ext4", "reflink": "xfs", "copy": "ext4"}
COPY_TIMEOUT_S = 600
COPY = "sparse copy"
GUEST_IMAGE, GUEST_MIB = "busybox", 128
WRITTEN_MIB = 16  # what a guest has changed before its disk is kept
READ_MIB = 64
WRITES = 2048  # 8 MiB, somewhere in a file of four times that
INSIDE = f"""
import json, os, time
SPREAD, BLOCK = {WRITES * 4}, 4096
data = os.urandom(BLOCK)
# An odd factor visits each of a power of two once.
order = [n * 5003 % SPREAD for n in range({WRITES})]

def timed(work):
    began = time.monotonic()
    work()
    return (time.monotonic() - began) * 1000

def write():
    for block in order:
        os.pwrite(fd, data, block * BLOCK)
    os.fsync(fd)

def read():
    disk = os.open("/dev/vda", os.O_RDONLY)
    for at in range({READ_MIB}):
        os.pread(disk, 1 << 20, at << 20)
    os.close(disk)

fd = os.open("/bench.dat", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
os.posix_fallocate(fd, 0, SPREAD * BLOCK)
os.fsync(fd)
first, again = timed(write), timed(write)
os.close(fd)
os.unlink("/bench.dat")
with open("/proc/sys/vm/drop_caches", "w") as file:
    file.write("3")
print(json.dumps([first, again, timed(read)]))
"""


@contextmanager
def data_directory(directory: Path, kind: str, source: Layout) -> Iterator[Layout]:
    """One of our own on a filesystem of this kind, with the kernel and images of `source`."""
    with (
        tempfile.TemporaryDirectory(dir=directory, prefix="wrenn-bench-") as name,
        on_loop(Path(name), kind, VOLUME_MIB) as mount,
    ):
        layout = Layout.prepare(mount / "data")
        for part in (source.kernels, source.images, source.names, source.vmm):
            process.run(
                ["cp", "-a", "--sparse=always", part, layout.data_dir], timeout_s=COPY_TIMEOUT_S
            )
        yield layout


def usable(layouts: dict[str, Layout]) -> dict[str, Layout]:
    """Drivers that work here, and where."""
    found = {}
    for name, kind in FILESYSTEM.items():
        if reason := drivers.why_not(layouts[kind].sandboxes, name):
            print(f"{name} is left out: {reason}")
        else:
            found[name] = layouts[kind]
    return found


def measure_host(places: dict[str, Layout], count: int) -> dict[str, Samples]:
    found = {name: Samples() for name in (COPY, *places)}
    for number in range(-1, count):  # the first round warms caches up: not counted
        rows = {COPY: {"create": timed(lambda: copy_synced(places["copy"]))}}
        for at, (name, layout) in enumerate(places.items()):
            driver = drivers.named(layout, name)
            there = Places(layout.sandboxes, driver, count=at * 100)
            rows[name] = host_round(there, base_of(layout))
        if number >= 0:
            for name, row in rows.items():
                found[name].add(row)
    return found


def host_round(places: Places, base: Path) -> dict[str, float]:
    """Milliseconds of each step of a disk's life; nothing is left of it."""
    row: dict[str, float] = {}
    homes = [places.new() for _ in range(4)]
    disk, kept, flat, again = homes
    driver = places.driver
    try:
        given = []
        row["create"] = timed(lambda: given.append(driver.create(base, disk, uid=0)))
        for at in range(WRITTEN_MIB):
            write(given[0], (100 + at * 7) * MIB, os.urandom(MIB))
        sync(given[0])
        row["keep"] = timed(lambda: driver.snapshot(disk, kept))
        row["clone"] = timed(lambda: driver.clone(kept, again, uid=0))
        row["flatten"] = timed(lambda: driver.flatten(disk, flat))
        row["remove"] = timed(lambda: driver.remove(disk))
    finally:
        for home in homes:
            driver.remove(home)
            shutil.rmtree(home.parent)
    return row


def base_of(layout: Layout) -> Path:
    return ImageStore(layout).find("base").rootfs


def copy_synced(layout: Layout) -> None:
    with (
        tempfile.TemporaryFile(dir=layout.data_dir) as target,
        base_of(layout).open("rb") as source,
    ):
        files.copy_sparse(source.fileno(), target.fileno())
        os.fsync(target.fileno())


def timed(work) -> float:
    began = time.monotonic()
    work()
    return (time.monotonic() - began) * 1000


def measure_guests(places: dict[str, Layout], count: int) -> dict[str, Samples]:
    """Each driver's guest is there all the time; they work in turns."""
    found = {name: Samples() for name in places}
    with ExitStack() as held:
        guests = {name: guest_on(layout, name, held) for name, layout in places.items()}
        for number in range(-1, count):
            for name, guest in guests.items():
                first, again, read = json.loads(guest.sh(f"{PYTHON} /inside.py"))
                if number >= 0:
                    found[name].add(
                        {
                            "4 KiB random writes, new blocks": WRITES / first * 1000,
                            "4 KiB random writes, again": WRITES / again * 1000,
                            "sequential read, MiB/s": READ_MIB / read * 1000,
                        }
                    )
    return found


def guest_on(layout: Layout, name: str, held: ExitStack) -> KeptSandbox:
    config = Config(data_dir=layout.data_dir, overlay=name)
    guest = KeptSandbox(LocalSandboxes(config, print), config)
    held.callback(guest.kill)
    guest.create(GUEST_IMAGE, GUEST_MIB)
    script = layout.data_dir / "inside.py"
    script.write_text(INSIDE)
    guest.upload(script, "/inside.py")
    return guest


def show_ratios(found: dict[str, Samples], base: str) -> None:
    """Of all that `base` has, too."""
    for name, samples in found.items():
        if name == base:
            continue
        for step in found[base].names:
            ratio = samples.median(step) / found[base].median(step)
            print(f"{name} beside {base}, {step}: {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10, help="rounds (default 10)")
    parser.add_argument("--no-guests", action="store_true", help="only what the host does")
    parser.add_argument("directory", type=Path, nargs="?", default=Path("/var/tmp"))
    options = parser.parse_args()
    show_host()
    with ExitStack() as held:
        layouts = {
            kind: held.enter_context(data_directory(options.directory, kind, prepared_layout()))
            for kind in sorted(set(FILESYSTEM.values()))
        }
        places = usable(layouts)
        found = measure_host(places, options.n)
        for name, samples in found.items():
            samples.show(name)
        show_ratios(found, COPY)
        if not options.no_guests:
            inside = measure_guests(places, options.n)
            for name, samples in inside.items():
                samples.show(f"in a guest on {name}", "a second")
            show_ratios(inside, "copy")


if __name__ == "__main__":
    main()
