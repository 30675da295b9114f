"""Measure the pager beside a handler in C that does the same: throughput, latency, memory.

Both serve the same stand-in for a VMM (`tests/fakes/vmm_memory.c`) from the same file, which is in
the page cache; alternating, so that a noisy minute hits both. Exits with 1 when a limit of
docs/memory.md does not hold.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

from pager_guest import PAGE, Guest, Snapshot, compiled, place, random_table, run_directory
from wrennd.core.deadline import Deadline
from wrennd.host import pagers
from wrennd.host.pagers import Source
from wrennd.linux import process
from wrennd.snapshot.header import Header

MIB = 256
LIMIT_THROUGHPUT = 0.85  # of C's, with 64-page windows
LIMIT_LATENCY = {False: 1.5, True: 2.0}  # of C's, single pages; True: all on one CPU
LIMIT_RSS_MIB = 25  # RssAnon for a guest of 4 GiB
GUEST_PAGES = 4 << 18


@dataclass(frozen=True)
class Setting:
    """One comparison. window 1: single pages, the median latency counts."""

    order: str
    window: int
    is_pinned: bool
    pages: int

    @property
    def name(self) -> str:
        where = "one CPU" if self.is_pinned else "unpinned"
        return f"{self.order}, {self.window} page{'s' * (self.window > 1)}, {where}"


@dataclass(frozen=True)
class Result:
    gb_per_s: float
    p50_us: float
    p99_us: float


def snapshot_of(directory: Path) -> Snapshot:
    """One build that holds every page."""
    pages = MIB << 8
    memfile = directory / "memfile"
    with memfile.open("wb") as file:
        for _ in range(MIB):
            file.write(os.urandom(4096) * 256)
    header = Header(("0" * 31 + "1",), b"\1" * pages)
    return Snapshot(header=header, memfiles=(memfile,), image=memfile)


@contextmanager
def ours(snapshot: Snapshot, run_dir: Path, setting: Setting) -> Iterator[list[int]]:
    where = place(run_dir, window_pages=setting.window)
    with pagers.serve(snapshot.source(), where) as pager:
        pager.wait_ready(Deadline.after(30))
        yield [pager.pid]


@contextmanager
def in_c(program: Path, snapshot: Snapshot, run_dir: Path, setting: Setting) -> Iterator[list[int]]:
    argv = [program, run_dir / "uffd.sock", snapshot.memfiles[0], str(setting.window)]
    with process.spawn(argv, stdout=process.PIPE) as child:
        pagers.hurry(child.pid)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield [child.pid]


def measure(
    serving, guest_program: Path, snapshot: Snapshot, run_dir: Path, setting: Setting
) -> Result:
    with serving as pids:
        if setting.is_pinned:
            for pid in pids:
                os.sched_setaffinity(pid, {0})  # the pager's worker is forked later
        with Guest(guest_program, run_dir, snapshot.image, [snapshot.header.pages]) as guest:
            if setting.is_pinned:
                os.sched_setaffinity(guest.process.pid, {0})
            assert guest.hear() == "greeted"
            answer = guest.ask(f"time {setting.order} {setting.pages} 1")
    total, _, p50, p99 = (int(word) for word in answer.split())
    return Result(setting.pages * PAGE / total, p50 / 1000, p99 / 1000)


def compare(directory: Path, count: int) -> bool:
    guest_program = compiled(directory)
    handler = directory / "handler"
    source = Path(__file__).with_name("pager_handler.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", handler, source], check=True)
    snapshot = snapshot_of(directory)
    holds = True
    for setting in settings(snapshot.header.pages):
        found: dict[str, list[Result]] = {"ours": [], "C": []}
        for _ in range(count):
            with run_directory() as run_dir:
                serving = ours(snapshot, run_dir, setting)
                found["ours"].append(measure(serving, guest_program, snapshot, run_dir, setting))
            with run_directory() as run_dir:
                serving = in_c(handler, snapshot, run_dir, setting)
                found["C"].append(measure(serving, guest_program, snapshot, run_dir, setting))
        holds &= judge(setting, found["ours"], found["C"])
    return holds


def settings(pages: int) -> Iterator[Setting]:
    for is_pinned in (False, True):
        for order in ("seq", "rand"):
            yield Setting(order=order, window=64, is_pinned=is_pinned, pages=pages)
            # Fewer of them: each wakes another CPU.
            yield Setting(order=order, window=1, is_pinned=is_pinned, pages=pages // 4)


def judge(setting: Setting, our: list[Result], its: list[Result]) -> bool:
    def median(results: list[Result], name: str) -> float:
        return statistics.median(getattr(result, name) for result in results)

    for name, results in (("ours", our), ("C", its)):
        print(
            f"{setting.name:>24}  {name:>4}: {median(results, 'gb_per_s'):6.3f} GB/s, "
            f"fault p50 {median(results, 'p50_us'):6.1f} us, p99 {median(results, 'p99_us'):7.1f}"
        )
    if setting.window > 1:
        ratio = median(our, "gb_per_s") / median(its, "gb_per_s")
        holds, limit = ratio >= LIMIT_THROUGHPUT, f"at least {LIMIT_THROUGHPUT}"
        what = "throughput"
    else:
        ratio = median(our, "p50_us") / median(its, "p50_us")
        most = LIMIT_LATENCY[setting.is_pinned]
        holds, limit, what = ratio <= most, f"at most {most}", "p50"
    verdict = "holds" if holds else "DOES NOT HOLD"
    print(f"{setting.name:>24}  {what}: {ratio:.2f} x C's, limit {limit}: {verdict}", flush=True)
    return holds


def memory(directory: Path) -> bool:
    """A header of ten builds in short runs, a quarter of the guest touched, a set prefetched."""
    table = random_table(GUEST_PAGES, builds=10, seed=1, longest=8)
    memfiles = tuple(directory / f"memfile.{number}" for number in range(10))
    for memfile in memfiles:
        with memfile.open("wb") as file:
            file.truncate(GUEST_PAGES * PAGE)
    header = Header(tuple(f"{number:032x}" for number in range(1, 11)), table)
    image = memfiles[0]  # all holes, as the others
    touched = directory / "touched"
    guest_program = directory / "vmm_memory"
    most = 0.0
    for _ in range(2):  # the second time with what the first one recorded
        source = Source(header=header.encode(), memfiles=memfiles, touched=touched)
        with (
            run_directory() as run_dir,
            pagers.serve(source, place(run_dir)) as pager,
            Guest(guest_program, run_dir, image, [3 << 18, 1 << 18]) as guest,
        ):
            assert guest.hear() == "greeted"
            assert guest.ask(f"time rand {GUEST_PAGES // 64} 1")
            touched.write_bytes(pager.touched())
            most = max(most, *(rss_mib(pid) for pid in (pager.pid, pager.stats().worker)))
    holds = most <= LIMIT_RSS_MIB
    verdict = "holds" if holds else "DOES NOT HOLD"
    print(f"RssAnon for a guest of 4 GiB: {most:.1f} MiB, limit {LIMIT_RSS_MIB}: {verdict}")
    return holds


def rss_mib(pid: int) -> float:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10, help="runs of each kind (default 10)")
    count = parser.parse_args().n
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        holds = compare(directory, count)
        holds &= memory(directory)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
