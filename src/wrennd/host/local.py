"""Sandboxes on this machine without a server: implements `core/sandboxes.py` for the CLI."""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network

from wrennd.core.config import Config
from wrennd.core.deadline import Deadline
from wrennd.core.errors import HostUnsuitable, NotFound, WrongState
from wrennd.core.ids import match_sandbox_id
from wrennd.core.model import SandboxSpec
from wrennd.core.sandboxes import Listed
from wrennd.core.states import State, require
from wrennd.core.timings import Timings
from wrennd.host import capacity, record, setup
from wrennd.host import reclaim as settling
from wrennd.host.local_sandbox import LocalSandbox
from wrennd.host.machine import Machine, Parts
from wrennd.host.reclaim import reclaim
from wrennd.host.record import Owner, Record
from wrennd.linux import process, routes
from wrennd.linux.process import Guard
from wrennd.linux.rtnetlink import Rtnetlink
from wrennd.network import resolvers
from wrennd.network.addressing import DEFAULT_POOL, parse_pool
from wrennd.network.slot import Network
from wrennd.storage import overlay
from wrennd.storage.images import ImageStore, Kernel
from wrennd.storage.layout import RUN_DIR, Layout
from wrennd.vmm import probe
from wrennd.vmm.probe import Candidates, Guest

log = logging.getLogger(__name__)
Report = Callable[[str], None]
# How long one command waits until another is done with the same sandbox.
PATIENCE_S = 120.0
KILL_S = 30.0
LOOK_S = 0.01


@contextmanager
def opened(config: Config, report: Report) -> Iterator["LocalSandboxes"]:
    """To make sandboxes: a guard undoes what this process can't when it is killed.

    Enter it from the main thread, before there are others: the guard is a fork.
    """
    here = LocalSandboxes(config, report)

    def undo() -> None:
        reclaim(here.layout, here.network)

    guard = Guard(undo)
    try:
        yield here
    finally:
        # A clean-up that failed or was interrupted is the guard's to finish, once we are gone.
        if not here.has_leftovers:
            guard.dismiss()


def existing(config: Config) -> "LocalSandboxes":
    """To use the sandboxes that are there. Errors: NotFound when there can be none."""
    require_root()
    if Layout.find(config.data_dir) is None:
        raise NotFound(
            f"there are no sandboxes: {config.data_dir} is no data directory of Wrenn's",
            hint="--data-dir and WRENN_DATA_DIR say where it is",
        )
    return LocalSandboxes(config, log.info)


def listed(config: Config) -> list[Listed]:
    """All sandboxes; looking makes no data directory."""
    require_root()
    return [] if Layout.find(config.data_dir) is None else existing(config).list()


class LocalSandboxes:
    """This machine. `report` is told what is being done when images must be built first."""

    def __init__(self, config: Config, report: Report) -> None:
        require_root()
        self.layout = Layout.prepare(config.data_dir)
        self.network = network_of(config, self.layout)
        self._config = config
        self._report = report
        self._made: list[str] = []

    @property
    def has_leftovers(self) -> bool:
        """Whether anything of a sandbox that was to end here is still on this host."""
        return any(self.layout.sandbox(made).data.exists() for made in self._made)

    @contextmanager
    def temporary(self, spec: SandboxSpec, timings: Timings) -> Iterator[LocalSandbox]:
        machine = self._boot(spec, timings, lives_on=False)
        with contextlib.ExitStack() as held:
            held.callback(machine.close)
            yield LocalSandbox(machine)

    def create(self, spec: SandboxSpec, timings: Timings) -> None:
        self._boot(spec, timings, lives_on=True).detach()
        self._made.remove(spec.id)

    def _boot(self, spec: SandboxSpec, timings: Timings, *, lives_on: bool) -> Machine:
        with timings.phase("prepare"):
            capacity.check_memory(spec.mem_mib)
            reclaim(self.layout, self.network)
            parts = self.parts(spec)
        self._made.append(spec.id)
        return Machine.boot(spec, parts, timings, lives_on=lives_on)

    @contextmanager
    def connect(self, sandbox_id: str) -> Iterator[LocalSandbox]:
        found = self._find(sandbox_id)
        require(found.id, found.state, State.RUNNING, reason=found.error)
        try:
            machine = Machine.adopt(self.layout, found)
        except (ProcessLookupError, FileNotFoundError):
            raise self._why_not_running(found.id) from None
        with contextlib.ExitStack() as held:
            held.callback(machine.close)
            yield LocalSandbox(machine)

    def list(self) -> list[Listed]:
        reclaim(self.layout, self.network)
        found = []
        for sandbox_id in settling.ids(self.layout):
            with contextlib.suppress(NotFound):  # it ended meanwhile
                found.append(self._listed(sandbox_id))
        return sorted(found, key=lambda listed: (listed.created, listed.id))

    def kill(self, sandbox_id: str) -> None:
        paths = self.layout.sandbox(self._match(sandbox_id))
        deadline = Deadline.after(PATIENCE_S)
        try:
            if record.load(paths).owner is Owner.PROCESS:
                self._end_with_owner(paths.data.name)
                return
            with record.operation(self.layout, paths.data.name, deadline) as journal:
                journal.update(state=State.DESTROYING)
                settling.unmake(self.layout, self.network, paths.data.name)
        except NotFound:
            pass  # another command was faster
        except WrongState:
            self._kill_without_record(paths.data.name)

    def _end_with_owner(self, sandbox_id: str) -> None:
        """End the VMM of a sandbox that belongs to a process, which then unmakes the rest."""
        paths = self.layout.sandbox(sandbox_id)
        deadline = Deadline.after(KILL_S)
        while paths.data.exists():
            with contextlib.suppress(NotFound):
                found = record.load(paths)
                if found.vmm_pid is not None and found.vmm_start_time is not None:
                    process.kill_and_wait(
                        found.vmm_pid, found.vmm_start_time, signal.SIGKILL, deadline
                    )
            settling.reclaim_one(self.layout, self.network, sandbox_id)
            deadline.check(f"ending sandbox {sandbox_id}, which belongs to a wrenn run,")
            time.sleep(LOOK_S)  # its directory's end is nothing that can be waited for

    def _kill_without_record(self, sandbox_id: str) -> None:
        """Remove one whose record says nothing that we understand. Errors: WrongState."""
        paths = self.layout.sandbox(sandbox_id)
        with record.taken_over(self.layout, paths) as is_ours:
            if not is_ours:
                raise WrongState(
                    f"sandbox {sandbox_id} is in the hands of another command",
                    hint="try again when that is done",
                )
            settling.unmake(self.layout, self.network, sandbox_id)

    def _find(self, sandbox_id: str) -> Record:
        return record.load(self.layout.sandbox(self._match(sandbox_id)))

    def _match(self, sandbox_id: str) -> str:
        return match_sandbox_id(sandbox_id, settling.ids(self.layout))

    def _why_not_running(self, sandbox_id: str) -> WrongState:
        """What became of a sandbox whose VMM is gone. Errors: NotFound."""
        with record.operation(self.layout, sandbox_id, Deadline.after(PATIENCE_S)) as journal:
            settling.settle(self.layout, self.network, journal)
        found = record.load(self.layout.sandbox(sandbox_id))
        require(sandbox_id, found.state, reason=found.error)
        raise AssertionError("no state was wanted")

    def _listed(self, sandbox_id: str) -> Listed:
        try:
            found = record.load(self.layout.sandbox(sandbox_id))
        except WrongState as error:
            return _unreadable(sandbox_id, str(error))
        return Listed(
            id=found.id,
            template=found.template,
            state=found.state,
            tier=found.tier,
            vcpus=found.vcpus,
            mem_mib=found.mem_mib,
            created=found.created,
            address=found.address,
            generation=found.generation,
            is_kept=found.owner is Owner.INSTALLATION,
            error=found.error,
        )

    def parts(self, spec: SandboxSpec) -> Parts:
        """What this host makes the sandbox of; builds images that are not there yet."""
        setup.ensure(self.layout, spec.image, self._report)
        images = ImageStore(self.layout)
        kernel = images.kernel()
        program, _ = probe.choose(
            self._config.vmm, candidates(self.layout), probe_guest(self.layout, kernel)
        )
        with Rtnetlink() as rt:
            own = routes.addresses(rt)
        return Parts(
            layout=self.layout,
            network=self.network,
            program=program,
            driver=overlay.choose(self.layout.sandboxes, self._config.overlay),
            kernel=kernel,
            image=images.find(spec.image),
            dns=resolvers.choose(spec.dns, own),
        )


def _unreadable(sandbox_id: str, why: str) -> Listed:
    return Listed(
        id=sandbox_id,
        template="",
        state=State.ERROR,
        tier="",
        vcpus=0,
        mem_mib=0,
        created="",
        address="",
        generation=0,
        is_kept=True,
        error=why,
    )


def require_root() -> None:
    """Errors: HostUnsuitable when this process is not root."""
    if os.geteuid() != 0:
        raise HostUnsuitable(
            "sandboxes can only be made by root",
            hint="run it with sudo: namespaces, TAP devices and mounts need it",
        )


def network_of(config: Config, layout: Layout) -> Network:
    return Network(installation=layout.installation, run_root=RUN_DIR, pool=pool_of(config))


def pool_of(config: Config) -> IPv4Network:
    return parse_pool(config.network_pool) if config.network_pool else DEFAULT_POOL


def candidates(layout: Layout) -> Candidates:
    return Candidates(directory=layout.vmm)


def probe_guest(layout: Layout, kernel: Kernel) -> Guest:
    return Guest(
        kernel=kernel.vmlinux,
        initrd=kernel.initrd,
        kernel_digest=kernel.digest,
        run_parent=layout.vmm,
    )
