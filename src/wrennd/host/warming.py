"""Warm images made: an image is booted, frozen, and restored once before anybody else may do so.

What is made on the way are sandboxes of this process: they end with it, whatever happens. Done
under the setup lock; `host/warm.py` says what becomes of what is made.
"""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from wrennd.core.errors import Error, GuestFailed
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxSpec
from wrennd.core.sandboxes import Exit
from wrennd.core.sizes import format_bytes
from wrennd.core.timings import Timings
from wrennd.host import capacity, setup, templates, warm
from wrennd.host.checkpoint import facts_of
from wrennd.host.lifecycle import Lifecycle
from wrennd.host.machine import Machine, Parts, new_record
from wrennd.snapshot import store
from wrennd.snapshot.reader import Snapshot, open_snapshot
from wrennd.storage.usage import disk_usage

log = logging.getLogger(__name__)
Report = Callable[[str], None]
# What every image has; a shell, and through it the C library, are what most commands begin with.
EXERCISE = ("/bin/sh", "-c", "exec echo warm")


def ensure(parts: Parts, report: Report, *, force: bool = False) -> None:
    """See to it that there is a warm image of `parts.image` with the default size that fits here.

    force: make it anew. When that fails nothing is lost: `report` is told why its sandboxes boot.
    """
    spec = _spec(parts)
    try:
        with setup.alone(parts.layout, report):
            if force or isinstance(warm.find(parts, spec), warm.Cold):
                began = time.monotonic()
                made = _make(parts, spec)
                used = format_bytes(disk_usage(made.directory))
                took = time.monotonic() - began
                report(f"{spec.image}: booted and frozen, {used} ({took:.1f} s)")
    except (Error, OSError) as error:
        log.warning("no warm image", extra={"image": spec.image, "why": str(error)})
        report(f"{spec.image}: its sandboxes will boot, since it could not be frozen: {error}")


def _spec(parts: Parts) -> SandboxSpec:
    return SandboxSpec(id=new_sandbox_id(), image=parts.image.name)


def _make(parts: Parts, spec: SandboxSpec) -> Snapshot:
    """Errors: as of `Machine.boot` and `Machine.spawn`, NoCapacity."""
    capacity.check_memory(spec.mem_mib)
    layout = parts.layout
    target = warm.directory(layout, parts.image.digest, spec)
    trial = target.with_name(target.name + warm.TRIAL)
    with ExitStack() as undo:
        store.remove(trial)  # of a setup that was killed
        undo.callback(store.remove, trial)
        frozen = _frozen(parts, spec, trial)
        touched = _tried(parts, frozen)
        warm.remove(layout, target)
        with store.draft(target) as made:
            made.link(frozen)
            made.write_touched(touched)
            return made.commit(warm.marked(frozen.manifest.facts))


def _frozen(parts: Parts, spec: SandboxSpec, target: Path) -> Snapshot:
    """A snapshot of a guest that has just booted and has run one command."""
    timings = Timings()
    with ExitStack() as held:
        machine = Machine.boot(spec, parts, timings, is_frozen_later=True)
        held.callback(machine.close)
        _exercise(machine)
        journal = machine.journal
        snapshot = Lifecycle(parts.layout, parts.network, journal).snapshot(timings)
        return templates.share_flat(parts.layout, snapshot, target, facts_of(journal.record))


def _tried(parts: Parts, frozen: Snapshot) -> bytes:
    """What the guest of a sandbox touches from its restore to its first command's end."""
    spec = _spec(parts)
    wanted = new_record(spec, lives_on=False)
    with ExitStack() as held:
        machine = Machine.spawn(
            wanted,
            lambda directory: store.share(open_snapshot(frozen.directory), directory),
            parts.ground,
            Timings(),
            env={},
        )
        held.callback(machine.close)
        _exercise(machine)
        return machine.touched()


def _exercise(machine: Machine) -> None:
    """Errors: GuestFailed, VmmFailed."""
    with machine.envd.start(Command(argv=EXERCISE)) as running:
        codes = [event.code for event in running.events() if isinstance(event, Exit)]
    if codes != [0]:
        raise GuestFailed(f"a first command in it ended with {codes}")
