"""Sandboxes on this machine without a server: implements `core/sandboxes.py` for the CLI."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from wrennd.core.config import Config
from wrennd.core.deadline import Deadline
from wrennd.core.errors import HostUnsuitable, VmmFailed
from wrennd.core.model import Command, SandboxSpec, TerminalSize
from wrennd.core.sandboxes import Exit, Output, Running
from wrennd.core.timings import Timings
from wrennd.host import capacity, setup, upload
from wrennd.host.envd_client import Started
from wrennd.host.machine import Machine, Parts
from wrennd.host.reclaim import reclaim
from wrennd.linux import routes
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
from wrennd.vmm.vm import Vm

log = logging.getLogger(__name__)
Report = Callable[[str], None]


@contextmanager
def opened(config: Config, report: Report) -> Iterator["LocalSandboxes"]:
    """Sandboxes that end with this process; a guard undoes what it can't when it is killed.

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
        """Whether anything of a sandbox made here is still on this host."""
        return any(self.layout.sandbox(made).data.exists() for made in self._made)

    @contextmanager
    def create(self, spec: SandboxSpec, timings: Timings) -> Iterator["LocalSandbox"]:
        with timings.phase("prepare"):
            capacity.check_memory(spec.mem_mib)
            reclaim(self.layout, self.network)
            parts = self.parts(spec)
        self._made.append(spec.id)
        machine = Machine.boot(spec, parts, timings)
        with contextlib.ExitStack() as held:
            held.callback(machine.close)
            yield LocalSandbox(machine)

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


class LocalSandbox:
    """One booted machine, as commands see it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def id(self) -> str:
        return self._machine.spec.id

    @contextmanager
    def start(self, command: Command) -> Iterator[Running]:
        with self._machine.envd.start(command) as started:
            yield LocalRunning(started, self._machine.vm)

    def upload(self, source: Path, destination: str, *, user: str) -> None:
        upload.upload(self._machine.envd, source, destination, user=user)


class LocalRunning:
    """A command in a machine."""

    def __init__(self, started: Started, vm: Vm) -> None:
        self._started = started
        self._vm = vm

    def events(self) -> Iterator[Output | Exit]:
        """Ends when the VMM does, with what it and the console said last."""
        try:
            yield from self._started.events()
        except VmmFailed as error:
            self._vm.process.wait(Deadline.after(1))
            raise VmmFailed(
                f"the sandbox ended under its command: {self._vm.describe_end()}",
                hint=self._vm.console_hint(),
            ) from error

    def send_stdin(self, data: bytes) -> bool:
        return self._started.send_stdin(data)

    def close_stdin(self) -> None:
        self._started.close_stdin()

    def resize(self, size: TerminalSize) -> None:
        self._started.resize(size)


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
