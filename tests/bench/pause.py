"""Measure pause and resume: beside the least they could cost, over generations and sizes.

Four parts, each of medians of N that alternate, so that a noisy minute hits both sides:

- *resume*: from the call until the first command has ended, of the same guest with its memory in
  one generation and in ten, beside a script that restores it from one flat file (`floor.py`);
- *size*: the same of guests of 256 MiB and 2 GiB, with what their pagers installed meanwhile;
- *pause*: of the same two, idle since they were resumed; and what that stores;
- *first pause*: of the same two, idle since they were booted.

A paused sandbox is put back to the same generation after each resume. Exits with 1 when a limit of
docs/memory.md does not hold.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

from boot import run_echo
from floor import floor_of
from verdict import Samples, all_hold, judge, show_host

from built_images import prepared_layout
from wrenn_command import wrenn
from wrennd.core.config import Config
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxRequest
from wrennd.core.states import State
from wrennd.core.timings import Timings
from wrennd.host import choice, pagers, record, recovery
from wrennd.host.local import LocalSandboxes
from wrennd.host.local_snapshots import LocalSnapshots
from wrennd.snapshot.collapse import collapse
from wrennd.snapshot.reader import Snapshot, open_snapshot
from wrennd.storage import drivers
from wrennd.storage.layout import Layout

LIMIT_FLOOR = 2.0  # resume to the first command's end, of what the script takes until /health
LIMIT_GENERATIONS = 1.15
LIMIT_RESUME_SIZE = 1.2
LIMIT_PAUSE_SIZE = 1.3
LIMIT_IDLE_MIB = 16
MEM_MIB = 512
SMALL_MIB, LARGE_MIB = 256, 2048
GENERATIONS = 10
IDLE_S = 1.0
TOTAL = "to the first command's end"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A sandbox that is measured, paused between the measurements."""

    sandboxes: LocalSandboxes
    id: str

    @property
    def snapshot(self) -> Snapshot:
        """Its newest generation."""
        paths = self.sandboxes.layout.sandbox(self.id)
        return open_snapshot(paths.generation(record.load(paths).generation))

    def resume(self) -> dict[str, float]:
        """Milliseconds of the phases of a resume, and of all until a first command has ended."""
        timings = Timings()
        began = time.monotonic()
        self.sandboxes.resume(self.id, timings)
        resumed = time.monotonic()
        self.echo()
        ended = time.monotonic()
        first = {"first command": (ended - resumed) * 1000, TOTAL: (ended - began) * 1000}
        return {**timings.phases_ms, **first}

    def resume_by_commands(self) -> dict[str, float]:
        """The same, typed: `wrenn resume`, then `wrenn exec`, with the starts of both."""
        data_dir = self.sandboxes.layout.data_dir
        began = time.monotonic()
        for command in (("resume", self.id), ("exec", self.id, "--", "echo", "hello")):
            done = wrenn(data_dir, *command)
            if done.returncode:
                raise RuntimeError(f"wrenn {command[0]} failed: {done.stderr}")
        return {"by two commands": (time.monotonic() - began) * 1000}

    def echo(self) -> None:
        with self.sandboxes.connect(self.id) as sandbox:
            run_echo(sandbox)

    def pause(self) -> dict[str, float]:
        """Milliseconds of the phases of a pause, and of all of it."""
        timings = Timings()
        began = time.monotonic()
        self.sandboxes.pause(self.id, timings)
        return {**timings.phases_ms, "whole pause": (time.monotonic() - began) * 1000}

    def put_back(self) -> None:
        """Paused again as it was: what it did since it was resumed is dropped."""
        with self.sandboxes.operation(self.id) as journal:
            journal.update(state=State.PAUSING)
            recovery.finish_pause(self.sandboxes.layout, self.sandboxes.network, journal)

    def installed(self) -> int:
        """How many pages its pager has given it since it was resumed."""
        paths = self.sandboxes.layout.sandbox(self.id)
        found = record.load(paths)
        assert found.pager_pid is not None
        assert found.pager_start_time is not None
        pager = pagers.adopt(found.pager_pid, found.pager_start_time, paths.run)
        try:
            return pager.stats().installed
        finally:
            pager.detach()


def made(sandboxes: LocalSandboxes, held: ExitStack, **wanted: object) -> Subject:
    """A new sandbox, running; it ends with `held`."""
    subject = Subject(sandboxes=sandboxes, id=new_sandbox_id())
    sandboxes.create(SandboxRequest(id=subject.id, **wanted), Timings())
    held.callback(sandboxes.kill, subject.id)
    return subject


def with_history(sandboxes: LocalSandboxes, held: ExitStack, mem_mib: int, count: int) -> Subject:
    """A paused sandbox of so many generations, each with one command's work in it."""
    subject = made(sandboxes, held, mem_mib=mem_mib, is_cold=True)
    subject.echo()
    subject.pause()
    for _ in range(count - 1):
        subject.resume()
        subject.pause()
    assert len(subject.snapshot.manifest.generations) == count
    return subject


def flat_twin(sandboxes: LocalSandboxes, held: ExitStack, of: Subject) -> Subject:
    """A paused sandbox with the same disk, state and memory, in one generation."""
    name = f"bench-{of.id}"
    snapshots = LocalSnapshots(sandboxes)
    snapshots.create(of.id, name, Timings())
    try:
        twin = made(sandboxes, held, template=name)
    finally:
        snapshots.remove(name)
    twin.put_back()
    with sandboxes.operation(twin.id) as journal:
        collapse(twin.snapshot, journal.paths.generation(2))
        journal.update(generation=2)
        recovery.drop_others(journal)
    assert len(twin.snapshot.manifest.generations) == 1
    assert twin.snapshot.read_sums() == of.snapshot.read_sums()
    return twin


def resume_beside_floor(sandboxes: LocalSandboxes, count: int) -> Iterator[bool]:
    floors, flat, chained = Samples(), Samples(), Samples()
    with ExitStack() as held:
        chain = with_history(sandboxes, held, MEM_MIB, GENERATIONS)
        show_generations(chain.snapshot)
        twin = flat_twin(sandboxes, held, chain)
        facts = twin.snapshot.manifest.facts
        ground, _ = choice.for_snapshot(config_of(sandboxes.layout), sandboxes.layout, facts)
        floor = held.enter_context(
            floor_of(twin.snapshot, ground.program, ground.driver, ground.network)
        )
        for number in range(-1, count):  # the first round warms caches up: not counted
            seconds = floor.restore()
            rows = [resumed_and_back(subject) for subject in (twin, chain)]
            typed = twin.resume_by_commands()
            twin.put_back()
            if number >= 0:
                floors.add({"until /health is answered": seconds * 1000})
                flat.add({**rows[0], **typed})
                chained.add(rows[1])
    floors.show("floor: a script restores from one flat file")
    flat.show("resume, 1 generation")
    chained.show(f"resume, {GENERATIONS} generations")
    least = floors.median("until /health is answered")
    ours, long = flat.median(TOTAL), chained.median(TOTAL)
    yield judge("resume to first command beside the floor", ours / least, LIMIT_FLOOR)
    yield judge(f"resume at {GENERATIONS} generations beside 1", long / ours, LIMIT_GENERATIONS)


def resumed_and_back(subject: Subject) -> dict[str, float]:
    row = subject.resume()
    subject.put_back()
    return row


def show_generations(snapshot: Snapshot) -> None:
    sizes = (f"{one.data_pages / 256:.1f}" for one in snapshot.manifest.generations)
    print("\ngenerations, oldest first, in MiB stored:", *sizes)


@contextmanager
def two_sizes(sandboxes: LocalSandboxes) -> Iterator[dict[int, Subject]]:
    """Paused twice, so that both have a recorded working set."""
    with ExitStack() as held:
        yield {
            mem_mib: with_history(sandboxes, held, mem_mib, 2) for mem_mib in (SMALL_MIB, LARGE_MIB)
        }


def resume_over_sizes(subjects: dict[int, Subject], count: int) -> Iterator[bool]:
    found = {mem_mib: Samples() for mem_mib in subjects}
    pages = {mem_mib: Samples() for mem_mib in subjects}
    for _ in range(count):
        for mem_mib, subject in subjects.items():
            found[mem_mib].add(subject.resume())
            pages[mem_mib].add({"installed": subject.installed()})
            subject.put_back()
    for mem_mib in subjects:
        found[mem_mib].show(f"resume, {mem_mib} MiB")
        pages[mem_mib].show(f"pages installed, {mem_mib} MiB", "pages")
    ratio = found[LARGE_MIB].median(TOTAL) / found[SMALL_MIB].median(TOTAL)
    yield judge(f"resume of {LARGE_MIB} MiB beside {SMALL_MIB}", ratio, LIMIT_RESUME_SIZE)


def pause_over_sizes(subjects: dict[int, Subject], count: int) -> Iterator[bool]:
    found = {mem_mib: Samples() for mem_mib in subjects}
    stored = {mem_mib: Samples() for mem_mib in subjects}
    for _ in range(count):
        for mem_mib, subject in subjects.items():
            subject.sandboxes.resume(subject.id, Timings())
            time.sleep(IDLE_S)
            found[mem_mib].add(subject.pause())
            stored[mem_mib].add(stored_mib(subject.snapshot))
    for mem_mib in subjects:
        found[mem_mib].show(f"pause after {IDLE_S:g} s idle, {mem_mib} MiB")
        stored[mem_mib].show(f"stored by it, {mem_mib} MiB", "MiB")
    ratio = found[LARGE_MIB].median("whole pause") / found[SMALL_MIB].median("whole pause")
    yield judge(f"pause of idle {LARGE_MIB} MiB beside {SMALL_MIB}", ratio, LIMIT_PAUSE_SIZE)
    for mem_mib in subjects:
        what = f"stored by an idle pause, {mem_mib} MiB"
        yield judge(what, stored[mem_mib].median("stored"), LIMIT_IDLE_MIB, unit="MiB")


def stored_mib(snapshot: Snapshot) -> dict[str, float]:
    """By its newest generation; nothing is said of a pause that ended in a collapse."""
    generations = snapshot.manifest.generations
    return {"stored": generations[-1].data_pages / 256} if len(generations) > 1 else {}


def first_pause(sandboxes: LocalSandboxes, count: int) -> Iterator[bool]:
    found = {mem_mib: Samples() for mem_mib in (SMALL_MIB, LARGE_MIB)}
    stored = {mem_mib: Samples() for mem_mib in found}
    for _ in range(count):
        for mem_mib in found:
            with ExitStack() as held:
                subject = made(sandboxes, held, mem_mib=mem_mib, is_cold=True)
                time.sleep(IDLE_S)
                found[mem_mib].add(subject.pause())
                (generation,) = subject.snapshot.manifest.generations
                stored[mem_mib].add({"stored": generation.data_pages / 256})
    for mem_mib in found:
        found[mem_mib].show(f"first pause after a boot and {IDLE_S:g} s, {mem_mib} MiB")
        stored[mem_mib].show(f"stored by it, {mem_mib} MiB", "MiB")
    ratio = found[LARGE_MIB].median("whole pause") / found[SMALL_MIB].median("whole pause")
    yield judge(f"first pause of {LARGE_MIB} MiB beside {SMALL_MIB}", ratio, LIMIT_PAUSE_SIZE)


def config_of(layout: Layout) -> Config:
    """With plain files for disks: the script that is the floor knows no other."""
    can_clone = drivers.can_clone(layout.sandboxes)
    return Config(data_dir=layout.data_dir, overlay="reflink" if can_clone else "copy")


def measure(sandboxes: LocalSandboxes, count: int) -> Iterator[bool]:
    yield from resume_beside_floor(sandboxes, count)
    with two_sizes(sandboxes) as subjects:
        yield from resume_over_sizes(subjects, count)
        yield from pause_over_sizes(subjects, count)
    yield from first_pause(sandboxes, count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10, help="runs of each kind (default 10)")
    count = parser.parse_args().n
    show_host()
    layout = prepared_layout()
    sandboxes = LocalSandboxes(config_of(layout), print)
    return all_hold(measure(sandboxes, count))


if __name__ == "__main__":
    sys.exit(main())
