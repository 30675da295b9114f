"""A sandbox that is kept, driven step by step, and a program in it that knows what it must hold.

`KeptSandbox` does what `wrenn create`, `pause`, `resume` and `kill` do, with what those leave to
nobody's choice: other VMM options, and something to do at a named step. `Workload` is the host's
side of guest/workload.py. `differing_pages` compares a snapshot with a flat file.
"""

import json
import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from wrennd.core.config import Config
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxSpec
from wrennd.core.sandboxes import Exit, Output
from wrennd.core.timings import Timings
from wrennd.host import choice, record
from wrennd.host.lifecycle import Lifecycle
from wrennd.host.local import LocalSandboxes
from wrennd.host.machine import Machine
from wrennd.host.making import no_step
from wrennd.snapshot.header import PAGE_SIZE, ZERO
from wrennd.snapshot.reader import Pages, Snapshot, open_snapshot
from wrennd.vmm import vm
from wrennd.vmm.program import Program
from wrennd.vmm.vm import SnapshotKind, Vm

WORKLOAD = Path(__file__).parent / "guest/workload.py"
RUNTIME = "/usr/lib/wrenn/python"
# As the guest agent is started; an image need not have an interpreter of its own.
PYTHON = f"{RUNTIME}/ld.so --library-path {RUNTIME}/lib {RUNTIME}/bin/python3 -I -S -B"
CHUNK_PAGES = 2048


def same(program: Program) -> Program:
    return program


def without_exact_tracking(program: Program) -> Program:
    """Every page that the VMM has for itself is in a Diff, as on kernels before 6.7."""
    return replace(program, argv=(*program.argv, "--dirty-pages", "populated"))


class KeptSandbox:
    """One sandbox of the installation of `sandboxes`, from `create` until `kill`."""

    def __init__(self, sandboxes: LocalSandboxes, config: Config, changed=same) -> None:
        self.sandboxes = sandboxes
        self.layout, self.network = sandboxes.layout, sandboxes.network
        self.id = new_sandbox_id()
        self.paths = self.layout.sandbox(self.id)
        self._config = config
        self._changed = changed

    def create(self, image: str, mem_mib: int) -> None:
        spec = SandboxSpec(id=self.id, image=image, mem_mib=mem_mib)
        parts = self.sandboxes.parts(spec)
        parts = replace(parts, program=self._changed(parts.program))
        Machine.boot(spec, parts, Timings(), lives_on=True).detach()

    def ground(self, facts):
        """What a snapshot of it is restored with."""
        ground, here = choice.for_snapshot(self._config, self.layout, facts)
        return replace(ground, program=self._changed(ground.program)), here

    @contextmanager
    def lifecycle(self, step=no_step, **options) -> Iterator[Lifecycle]:
        with self.sandboxes.operation(self.id) as journal:
            yield Lifecycle(self.layout, self.network, journal, step, **options)

    def pause(self, step=no_step, **options) -> None:
        with self.lifecycle(step, **options) as lifecycle:
            lifecycle.pause(Timings())

    def snapshot(self, step=no_step) -> None:
        """It goes on."""
        with self.lifecycle(step) as lifecycle:
            lifecycle.snapshot(Timings())

    def resume(self, step=no_step, *, discard=False) -> None:
        with self.lifecycle(step) as lifecycle:
            lifecycle.resume(self.ground, Timings(), discard=discard)

    def kill(self) -> None:
        if self.paths.data.exists():
            self.sandboxes.kill(self.id)

    @property
    def record(self) -> record.Record:
        return record.load(self.paths)

    def newest(self) -> Snapshot:
        return open_snapshot(self.paths.generation(self.record.generation))

    @contextmanager
    def vm(self) -> Iterator[Vm]:
        """Its VM, which goes on."""
        found = self.record
        with ExitStack() as held:
            adopted = vm.adopt(found.vmm_pid, found.vmm_start_time, self.paths.run)
            held.callback(adopted.detach)
            yield adopted

    @contextmanager
    def machine(self) -> Iterator[Machine]:
        """It and its agent, without asking whether it is well."""
        machine = Machine.adopt(self.layout, self.record)
        try:
            yield machine
        finally:
            machine.close()

    def upload(self, source: Path, destination: str) -> None:
        with self.sandboxes.connect(self.id) as sandbox:
            sandbox.upload(source, destination, user="root")

    def sh(self, script: str) -> str:
        """What the script writes. It must succeed."""
        command = Command(argv=("sh", "-c", script), user="root")
        with self.sandboxes.connect(self.id) as sandbox, sandbox.start(command) as running:
            *output, end = running.events()
        said = b"".join(one.data for one in output if isinstance(one, Output)).decode()
        assert end == Exit(0), said
        return said

    def check_against_full(self, step: str) -> None:
        """For a step of a pause: when it is committed, the snapshot is all that the guest is."""
        if step != "committed":
            return
        with self.vm() as paused:
            full = paused.snapshot(SnapshotKind.FULL, self.paths.out)
        found = differing_pages(self.newest(), full.memory)
        assert not found, f"{len(found)} pages are not the guest's: {found[:20]}"

    def check_against_full_meanwhile(self, step: str) -> None:
        """As `check_against_full`, for a snapshot of one that goes on: what it is to be compared
        with is taken while it stands still."""
        kept = self.paths.data / "to-compare"
        if step == "disk":
            written = [path.rename(path.with_name(f"{path.name}.was")) for path in self._written]
            with self.vm() as stopped:
                full = stopped.snapshot(SnapshotKind.FULL, self.paths.out)
            full.memory.rename(kept)
            for was, path in zip(written, self._written, strict=True):
                was.rename(path)
        if step == "committed":
            found = differing_pages(self.newest(), kept)
            kept.unlink()
            assert not found, f"{len(found)} pages were not the guest's: {found[:20]}"

    @property
    def _written(self) -> list[Path]:
        return [self.paths.out / name for name in ("state", "memory")]


@dataclass
class Workload:
    """guest/workload.py in a sandbox. `digest`: of what it must hold."""

    sandbox: KeptSandbox
    digest: int = 0

    @classmethod
    def start(cls, sandbox: KeptSandbox, *, mib: int, files: int = 40) -> "Workload":
        sandbox.upload(WORKLOAD, "/workload.py")
        sandbox.sh(
            f"{PYTHON} /workload.py serve /workload.sock /files {mib} {files}"
            " > /workload.log 2>&1 < /dev/null &"
            " until grep -q serving /workload.log; do sleep 0.05; kill -0 $!; done"
        )
        return cls(sandbox)

    def ask(self, request: str) -> dict:
        found = json.loads(self.sandbox.sh(ask(request)))
        assert isinstance(found, dict)
        return found

    def fill(self, seed: int) -> None:
        self.digest = self.ask(f"fill {seed}")["digest"]

    def step(self, seed: int, count: int) -> None:
        self.digest = self.ask(f"step {seed} {count}")["digest"]

    def drop_cached_files(self) -> None:
        """What is read next comes from the disk."""
        self.sandbox.sh("sync; echo 3 > /proc/sys/vm/drop_caches")

    def check(self) -> None:
        self.judge(self.ask("check"))

    def judge(self, found: dict) -> None:
        assert not found["wrong_count"], f"{found['wrong_count']} are wrong: {found['wrong']}"
        assert found["digest"] == self.digest, "it is what it was at another time"


def ask(request: str) -> str:
    """The command that asks the program in the guest."""
    return f"{PYTHON} /workload.py ask /workload.sock '{request}'"


def differing_pages(snapshot: Snapshot, flat: Path) -> list[int]:
    """The pages in which a snapshot, composed of its generations, is not the file."""
    assert flat.stat().st_size == snapshot.header.size
    different: list[int] = []
    with Pages.opened(snapshot) as pages, flat.open("rb") as file:
        for start, stop, source in runs(snapshot.header.table):
            at, size = start * PAGE_SIZE, (stop - start) * PAGE_SIZE
            wanted = os.pread(file.fileno(), size, at)
            found = bytes(size) if source == ZERO else os.pread(pages.fd(source), size, at)
            if found != wanted:
                different += [
                    page
                    for page in range(start, stop)
                    if page_of(found, page - start) != page_of(wanted, page - start)
                ]
    return different


def runs(table: bytes) -> Iterator[tuple[int, int, int]]:
    """Pages from a first up to another that are of one source, CHUNK_PAGES at most."""
    at = 0
    for source, group in groupby(table):
        end = at + sum(1 for _ in group)
        for start in range(at, end, CHUNK_PAGES):
            yield start, min(start + CHUNK_PAGES, end), source
        at = end


def page_of(data: bytes, page: int) -> bytes:
    return data[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]


def pages_like(snapshot: Snapshot, content: bytes) -> list[int]:
    """The pages of a snapshot's guest that hold exactly that."""
    found = []
    with Pages.opened(snapshot) as pages, ExitStack() as held:
        maps = [held.enter_context(_mapped(pages.fd(n + 1))) for n in range(len(snapshot.memfiles))]
        for page, source in enumerate(snapshot.header.table):
            if source != ZERO and page_of(maps[source - 1], page) == content:
                found.append(page)
    return found


def _mapped(fd: int) -> mmap.mmap:
    return mmap.mmap(fd, 0, prot=mmap.PROT_READ)
