"""What sandboxes of this host are made with: VMM, disks, resolvers; chosen anew each time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from wrennd.core.config import Config
from wrennd.core.errors import HostUnsuitable, SnapshotIncompatible
from wrennd.core.model import SandboxSpec
from wrennd.host import vmm_facts
from wrennd.host.machine import Parts
from wrennd.host.making import Ground
from wrennd.linux import routes
from wrennd.linux.rtnetlink import Rtnetlink
from wrennd.network import resolvers
from wrennd.network.addressing import DEFAULT_POOL, parse_pool
from wrennd.network.slot import Network
from wrennd.snapshot.manifest import Facts
from wrennd.snapshot.validity import Here
from wrennd.storage import drivers
from wrennd.storage.images import ImageStore, Kernel
from wrennd.storage.layout import RUN_DIR, Layout
from wrennd.vmm import probe
from wrennd.vmm.probe import Candidates, Guest
from wrennd.vmm.program import Program

Report = Callable[[str], None]


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


def for_image(config: Config, layout: Layout, spec: SandboxSpec, report: Report) -> Parts:
    """To boot a base image, which is built if it is not there yet, and then frozen, too.

    Errors: as of a setup.
    """
    # All that builds images: a fifth of the time that other commands take to start.
    from wrennd.host import setup

    is_new = setup.ensure(layout, spec.image, report)
    images = ImageStore(layout)
    kernel = images.kernel()
    ground = for_disk(config, layout, kernel, spec.dns)
    parts = Parts(
        layout=layout,
        network=ground.network,
        program=ground.program,
        driver=ground.driver,
        vmm=ground.vmm,
        kernel=kernel,
        image=images.find(spec.image),
        dns=ground.dns,
    )
    if is_new:
        from wrennd.host import warming

        # For those who say nothing of resolvers, whatever was said now.
        usual = for_disk(config, layout, kernel, ()).dns
        warming.ensure(replace(parts, dns=usual), report)
    return parts


def for_disk(config: Config, layout: Layout, kernel: Kernel, dns: Sequence[str]) -> Ground:
    """To boot a kernel with whatever disk."""
    program, _ = probe.choose(config.vmm, candidates(layout), probe_guest(layout, kernel))
    with Rtnetlink() as rt:
        own = routes.addresses(rt)
    return _ground(config, layout, program, resolvers.choose(dns, own))


def for_snapshot(config: Config, layout: Layout, facts: Facts) -> tuple[Ground, Here]:
    """To restore what was frozen with those facts: with the VMM that it needs, unless told which.

    Its resolvers are those that its guest knows. Errors: SnapshotIncompatible when there is no
    such VMM here.
    """
    kernel = ImageStore(layout).kernel()
    name = vmm_facts.program_name(facts.vmm, facts.tier)
    wanted = name if config.vmm == "auto" else config.vmm
    try:
        program, _ = probe.choose(wanted, candidates(layout), probe_guest(layout, kernel))
    except HostUnsuitable as error:
        if wanted != name:
            raise
        raise SnapshotIncompatible(
            f"it was made by {name}, which can't be used here: {error}", hint=error.hint
        ) from error
    known = [address for address in facts.extra.get("resolvers", "").split(",") if address]
    ground = _ground(config, layout, program, tuple(IPv4Address(address) for address in known))
    return ground, vmm_facts.here(program, layout.vmm, kernel.version)


def _ground(
    config: Config, layout: Layout, program: Program, dns: tuple[IPv4Address, ...]
) -> Ground:
    return Ground(
        layout=layout,
        network=network_of(config, layout),
        program=program,
        driver=drivers.choose(layout, config.overlay),
        vmm=vmm_facts.of_program(program, layout.vmm),
        dns=dns,
    )
