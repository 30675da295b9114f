"""Measure instant start: what restores of a warm image cost, and beside the least they could cost.

Two parts, each of medians of N:

- *run*: `wrenn run -- echo hello`, typed, from start to end, with its phases and their share of it,
  beside the same with `--cold`;
- *create*: from the call until a first command has ended, beside a script that restores the same
  guest from its memory file (`floor.py`), alternating.

Exits with 1 when a limit of docs/instant.md does not hold.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

from boot import run_echo
from floor import floor_of
from pause import config_of
from verdict import Samples, all_hold, judge, show_host

from built_images import prepared_layout
from wrenn_command import wrenn
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxRequest, SandboxSpec
from wrennd.core.timings import Timings
from wrennd.host import warm
from wrennd.host.local import LocalSandboxes

LIMIT_RUN_MS = 2500
LIMIT_FLOOR = 2.0
TYPED, TOTAL = "typed, start to end", "to the first command's end"


def typed(data_dir: Path, *options: str) -> dict[str, float]:
    """Milliseconds of the phases of a `wrenn run`, and of all of it."""
    began = time.monotonic()
    done = wrenn(data_dir, "run", "--json", *options, "--", "echo", "hello")
    ended = time.monotonic()
    if done.returncode:
        raise RuntimeError(f"wrenn run failed: {done.stderr}")
    told = json.loads(done.stdout)
    expected = "cold: asked for" if options else "warm"
    if told["start"] != expected:
        raise RuntimeError(f"this was to be {expected}: {told['start']}")
    return {**told["timings_ms"], TYPED: (ended - began) * 1000}


def runs(data_dir: Path, count: int) -> Iterator[bool]:
    restored, booted = Samples(), Samples()
    typed(data_dir)  # page cache, compiled files: not measured
    for _ in range(count):
        restored.add(typed(data_dir))
        booted.add(typed(data_dir, "--cold"))
    restored.show("wrenn run -- echo hello", share_of=TYPED)
    booted.show("wrenn run --cold -- echo hello", share_of=TYPED)
    yield judge("wrenn run -- echo hello", restored.median(TYPED), LIMIT_RUN_MS, unit="ms")


def created(sandboxes: LocalSandboxes) -> dict[str, float]:
    timings = Timings()
    began = time.monotonic()
    with sandboxes.temporary(SandboxRequest(id=new_sandbox_id()), timings) as sandbox:
        ready = time.monotonic()
        run_echo(sandbox)
        ended = time.monotonic()
    if timings.notes["start"] != "warm":
        raise RuntimeError(f"this was to be restored: {timings.notes['start']}")
    first = {"first command": (ended - ready) * 1000, TOTAL: (ended - began) * 1000}
    return {**timings.phases_ms, **first, "end": (time.monotonic() - ended) * 1000}


def creates_beside_floor(sandboxes: LocalSandboxes, count: int) -> Iterator[bool]:
    spec = SandboxSpec(id=new_sandbox_id())
    parts = sandboxes.parts(spec)
    found = warm.find(parts, spec)
    if isinstance(found, warm.Cold):
        raise RuntimeError(found.why)
    floors, ours = Samples(), Samples()
    with ExitStack() as held:
        floor = held.enter_context(floor_of(found, parts.program, parts.driver, parts.network))
        for number in range(-1, count):  # the first round warms caches up: not counted
            seconds, row = floor.restore(), created(sandboxes)
            if number >= 0:
                floors.add({"until /health is answered": seconds * 1000})
                ours.add(row)
    floors.show("floor: a script restores from one flat file")
    ours.show("create, in a process that is there", share_of=TOTAL)
    ratio = ours.median(TOTAL) / floors.median("until /health is answered")
    yield judge("create to first command beside the floor", ratio, LIMIT_FLOOR)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10, help="runs of each kind (default 10)")
    count = parser.parse_args().n
    show_host()
    layout = prepared_layout()
    # Not settling: the script's network belongs to no sandbox, and would be reclaimed.
    sandboxes = LocalSandboxes(config_of(layout), print, settles=False)
    results = [*runs(layout.data_dir, count), *creates_beside_floor(sandboxes, count)]
    return all_hold(results)


if __name__ == "__main__":
    sys.exit(main())
