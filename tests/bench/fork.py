"""Measure forks: what ten children cost, what their source notices, what each idle one adds.

In each of N rounds a guest of 512 MiB writes 32 MiB anew, and is forked into CHILDREN children at
once, in each of which a command is run; beside it, in the same round:

- *one restore*: a paused sandbox of the same memory, resumed until a command has ended;
- *writing its dirty bytes*: as many bytes as its memory had, and its disk by the same driver,
  written to the same filesystem by a script;
- *the gap*: the longest time between two lines of a program in the source that writes one each
  20 ms, in a fork of its own, into one child.

Exits with 1 when a limit of docs/snapshots.md does not hold.
"""

import argparse
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

import itertools

from pause import MEM_MIB, TOTAL, Subject, config_of, made
from verdict import Samples, all_hold, judge, show_host

from built_images import prepared_layout
from wrennd.core.model import Command
from wrennd.core.sandboxes import Output
from wrennd.core.timings import Timings
from wrennd.host import record
from wrennd.host.local import LocalSandboxes
from wrennd.storage import drivers

CHILDREN = 10
LIMIT_RESTORES = 1.3  # of one restore to a command's end, for each child that a CPU has
LIMIT_STOPPED, SLACK_MS = 1.5, 100.0
DIRTY_MIB = 32
IDLE_S = 3.0
STOPPED = ("stop", "write", "disk")
SNAPSHOT = ("admit", "freeze", *STOPPED, "resume", "keep", "share")
PREPARE = f"head -c {DIRTY_MIB << 20} /dev/urandom > /dev/shm/a; cp /dev/shm/a /dev/shm/b"
TICKS = "while :; do echo; sleep 0.02; done"


def shell(sandboxes: LocalSandboxes, sandbox_id: str, script: str) -> None:
    command = Command(argv=("sh", "-c", script), user="root")
    with sandboxes.connect(sandbox_id) as sandbox, sandbox.start(command) as running:
        for _ in running.events():
            pass


@contextmanager
def ticking(source: Subject) -> Iterator[list[float]]:
    """The moments at which a program in the source was heard of."""
    moments: list[float] = []
    command = Command(argv=("sh", "-c", TICKS), user="user")
    with source.sandboxes.connect(source.id) as sandbox, sandbox.start(command) as running:

        def listen() -> None:
            for event in running.events():
                if isinstance(event, Output):
                    moments.append(time.monotonic())

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield moments
        finally:
            running.kill()
            listener.join()


def gap_ms(source: Subject) -> float:
    """With one child: it has the program, too, and many of them would keep the CPUs busy."""
    with ExitStack() as held, ticking(source) as moments:
        forked(source, held, 1)
    gaps = (later - earlier for earlier, later in itertools.pairwise(moments))
    return max(gaps) * 1000


def forked(source: Subject, held: ExitStack, count: int) -> tuple[list[Subject], dict[str, float]]:
    """Its children, each with a command's end behind it, and how long what took."""
    sandboxes, timings = source.sandboxes, Timings()
    began = time.monotonic()
    children = sandboxes.fork(source.id, count, timings)
    subjects = [Subject(sandboxes=sandboxes, id=child.id) for child in children]
    for subject in subjects:
        held.callback(sandboxes.kill, subject.id)
    errors = [str(child.error) for child in children if child.error is not None]
    if errors:
        raise RuntimeError("; ".join(errors))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(Subject.echo, subjects))
    total_ms = (time.monotonic() - began) * 1000
    phases = timings.phases_ms
    snapshot_ms = sum(phases[name] for name in SNAPSHOT)
    stopped_ms = sum(phases[name] for name in STOPPED)
    return subjects, {**phases, "snapshot": snapshot_ms, "stopped": stopped_ms, "all": total_ms}


def written_ms(source: Subject) -> dict[str, float]:
    """What a script needs for as many bytes as the newest generation has, and for the disk."""
    paths = source.sandboxes.layout.sandbox(source.id)
    found = record.load(paths)
    pages = source.snapshot.manifest.generations[-1].data_pages
    content, target = os.urandom(pages * 4096), paths.data / "bench"
    began = time.monotonic()
    with target.open("wb") as file:
        file.write(content)
    written = time.monotonic()
    driver = drivers.of(source.sandboxes.layout, paths.disk, found.overlay)
    kept = driver.snapshot(paths.disk, paths.data / "bench-disk", is_synced=False)
    ended = time.monotonic()
    target.unlink()
    kept.unlink()
    return {
        "MiB of memory": pages / 256,
        "writing them": (written - began) * 1000,
        "keeping the disk": (ended - written) * 1000,
        "writing its dirty bytes": (ended - began) * 1000,
    }


def pss_mib(sandboxes: LocalSandboxes, sandbox_id: str) -> float:
    """Of its VMM, its pager, and the processes of both."""
    found = record.load(sandboxes.layout.sandbox(sandbox_id))
    assert found.vmm_pid is not None
    assert found.pager_pid is not None
    pids = [*family(found.vmm_pid), *family(found.pager_pid)]
    return sum(pss_kib(pid) for pid in pids) / 1024


def family(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from family(int(child))


def pss_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.split("\nPss:")[1].split()[0])


def measure(sandboxes: LocalSandboxes, count: int) -> Iterator[bool]:
    forks, restores, writes, pss = Samples(), Samples(), Samples(), Samples()
    snapshots = set()
    with ExitStack() as held:
        source = made(sandboxes, held, mem_mib=MEM_MIB)
        shell(sandboxes, source.id, PREPARE)
        paused = Subject(sandboxes=sandboxes, id=sandboxes.fork(source.id, 1, Timings())[0].id)
        held.callback(sandboxes.kill, paused.id)
        paused.echo()
        paused.pause()
        for number in range(-1, count):  # the first round warms caches up: not counted
            shell(sandboxes, source.id, "cp /dev/shm/a /dev/shm/b")
            restore = paused.resume()
            paused.put_back()
            before = newest(source)
            with ExitStack() as family_held:
                children, row = forked(source, family_held, CHILDREN)
                snapshots.add(newest(source) - before)
                time.sleep(IDLE_S)
                added = {"each idle child": sum(pss_mib(sandboxes, c.id) for c in children)}
                added["each idle child"] /= len(children)
            written = written_ms(source)
            row["gap"] = gap_ms(source)
            if number >= 0:
                restores.add(restore)
                forks.add(row)
                writes.add(written)
                pss.add(added)
    forks.show(f"fork into {CHILDREN} children of {MEM_MIB} MiB, each until a command has ended")
    restores.show("one restore, until a command has ended")
    writes.show("a script")
    pss.show("memory (PSS)", "MiB")
    yield judge("snapshots of one fork", max(snapshots), 1, unit="")
    each = CHILDREN / (os.cpu_count() or 1) * restores.median(TOTAL)
    ratio = (forks.median("all") - forks.median("snapshot")) / each
    yield judge("children beside as many restores", ratio, LIMIT_RESTORES)
    least = writes.median("writing its dirty bytes")
    ratio = (forks.median("stopped") - SLACK_MS) / least
    yield judge(f"stopped, less {SLACK_MS:g} ms, beside a script", ratio, LIMIT_STOPPED)


def newest(source: Subject) -> int:
    return record.load(source.sandboxes.layout.sandbox(source.id)).generation


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10, help="rounds (default 10)")
    count = parser.parse_args().n
    show_host()
    layout = prepared_layout()
    sandboxes = LocalSandboxes(config_of(layout), print)
    return all_hold(measure(sandboxes, count))


if __name__ == "__main__":
    sys.exit(main())
