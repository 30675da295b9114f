"""Measure a collapse beside `cp --sparse=always` of the same bytes, both synced, input cached.

    python tests/bench/collapse.py [-n ROUNDS] [DIRECTORY]

The chain is made by pauses, which are timed too: 1 GiB of memory, a first generation with data in
half of its pages, and ten more that change 3 % each in runs of 8 pages. The collapse is the whole
operation, with its directory, header and syncs; cp copies the one file that it makes. The ratio
is the speed of the collapse to that of cp, of medians of rounds that alternate. Exits with 1
when it is below the goal.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

from snapshot_samples import take, write_diff
from wrennd.linux import process
from wrennd.snapshot.collapse import collapse
from wrennd.snapshot.header import PAGE_SIZE
from wrennd.snapshot.manifest import MIB
from wrennd.snapshot.reader import Snapshot
from wrennd.snapshot.store import remove

MEM_MIB = 1024
PAGES = MEM_MIB * MIB // PAGE_SIZE
INCREMENTS = 10
GOAL = 0.7


def write_output(out: Path, chance: random.Random, share: float, run: int) -> None:
    """What a VMM leaves of a guest that wrote this share of its memory."""
    out.mkdir(exist_ok=True)
    (out / "state").write_bytes(chance.randbytes(50_000))
    write_diff(out / "memory", {}, MEM_MIB * MIB)
    with (out / "memory").open("r+b") as file:
        for place in sorted(chance.sample(range(PAGES // run), int(PAGES * share / run))):
            file.seek(place * run * PAGE_SIZE)
            file.write(chance.randbytes(run * PAGE_SIZE))
        file.flush()
        os.fsync(file.fileno())  # as a VMM does


def make_chain(directory: Path) -> Snapshot:
    """A chain that is as long as one may be, in the page cache."""
    chance = random.Random(1)
    snapshot = None
    for number in range(INCREMENTS + 1):
        share, run = (0.5, 256) if number == 0 else (0.03, 8)
        write_output(directory / "out", chance, share, run)
        start = time.perf_counter()
        snapshot = take(directory / f"gen-{number}", directory / "out", parent=snapshot,
                        mem_mib=MEM_MIB)  # fmt: skip
        if number < 2:
            taken = time.perf_counter() - start
            stored = snapshot.manifest.generations[-1].data_pages * PAGE_SIZE / MIB
            speed = f"{taken * 1000:6.0f} ms  {stored / taken:6.0f} MiB/s"
            print(f"pause, {stored:4.0f} MiB       {speed}")
    assert snapshot is not None
    return snapshot


def timed_collapse(snapshot: Snapshot, directory: Path) -> float:
    start = time.perf_counter()
    collapse(snapshot, directory)
    return time.perf_counter() - start


def timed_copy(source: Path, target: Path) -> float:
    """What `cp` takes, and then the sync: as one who copies a snapshot by hand would."""
    start = time.perf_counter()
    process.run(["cp", "--sparse=always", source, target], timeout_s=300)
    fd = os.open(target, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    return time.perf_counter() - start


def compare(chain: Snapshot, directory: Path, rounds: int) -> tuple[float, float, int]:
    """Seconds of a collapse and of a copy, and how many bytes each of them wrote."""
    merged = collapse(chain, directory / "merged")
    (image,) = merged.memfiles
    image.read_bytes()
    stored = image.stat().st_blocks * 512
    collapses, copies = [], []
    for _ in range(rounds):
        collapses.append(timed_collapse(chain, directory / "timed"))
        remove(directory / "timed")
        copies.append(timed_copy(image, directory / "copy"))
        (directory / "copy").unlink()
    return statistics.median(collapses), statistics.median(copies), stored


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10, help="rounds (default 10)")
    parser.add_argument("directory", type=Path, nargs="?", default=Path("/var/tmp"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        chain = make_chain(directory)
        ours, theirs, stored = compare(chain, directory, options.n)
        runs = sum(1 for run in chain.header.runs() if run[2])
    print(f"{INCREMENTS + 1} generations, {stored / MIB:.0f} MiB of data in {runs} runs")
    print(f"collapse              {ours * 1000:6.0f} ms  {stored / ours / MIB:6.0f} MiB/s")
    print(f"cp --sparse=always    {theirs * 1000:6.0f} ms  {stored / theirs / MIB:6.0f} MiB/s")
    print(f"ratio                 {theirs / ours:6.2f}     (at least {GOAL})")
    return 0 if theirs / ours >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
