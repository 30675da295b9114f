"""What `wrenn doctor` finds out: what will be used and why, what is missing, and what to do.

Looks without changing anything, but for the probe of a VMM with KVM, which boots a guest and
keeps the answer. Every check says what was found; one that is not OK says what to do.
"""

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from wrennd.core.config import Config
from wrennd.core.errors import Error, ImageBroken, NotFound
from wrennd.core.sizes import GIB, format_bytes
from wrennd.host import choice, setup
from wrennd.linux import pagemap, routes, userns
from wrennd.linux.cgroup import Hierarchy
from wrennd.linux.process import CLEAN_ENVIRONMENT, run
from wrennd.linux.rtnetlink import Rtnetlink
from wrennd.network import resolvers
from wrennd.network.addressing import link_prefix
from wrennd.network.survey import survey
from wrennd.storage import drivers
from wrennd.storage.images import ImageStore
from wrennd.storage.layout import Layout
from wrennd.vmm import probe
from wrennd.vmm.probe import Verdict
from wrennd.vmm.program import Program

# Programs of the host that are called, and the Debian package that has each: to run sandboxes,
# and to build images.
PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "nft": "nftables", "nsenter": "util-linux"}
PROGRAMS |= setup.TOOLS
BETTER_TIER = (
    "needs a machine with hardware virtualization (bare metal, or a cloud machine with nested "
    "virtualization turned on), and for Firecracker its binary: wrenn setup --firecracker FILE"
)
USERNS_S = 30.0
FIRST_RUN = "nothing to do: the first wrenn run builds them; wrenn setup does it now"
SETUP_BYTES = 6 * GIB  # kernel, both images, what building them takes, and one sandbox
# linux/capability.h: SYS_ADMIN, NET_ADMIN, MKNOD, SETUID, SETGID, CHOWN, KILL, SYS_CHROOT.
NEEDED_CAPABILITIES = {
    21: "CAP_SYS_ADMIN", 12: "CAP_NET_ADMIN", 27: "CAP_MKNOD", 7: "CAP_SETUID",
    6: "CAP_SETGID", 0: "CAP_CHOWN", 5: "CAP_KILL", 18: "CAP_SYS_CHROOT",
}  # fmt: skip


class Status(StrEnum):
    """OK: nothing to do. NOTE: works, but less well. MISSING: sandboxes can't run without it."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at. `advice` is empty when there is nothing to do."""

    name: str
    status: Status
    found: str
    advice: str = ""


def examine(config: Config) -> list[Check]:
    """All checks, in the order in which a user would mend them."""
    groups: tuple[Callable[[Config], Iterator[Check]], ...] = (
        _privileges, _programs, _kernel, _cgroups, _storage, _network, _images, _vmm,
    )  # fmt: skip
    return [check for group in groups for check in group(config)]


def _check(name: str, problem: str, advice: str, fine: str, *, must: bool = True) -> Check:
    if not problem:
        return Check(name=name, status=Status.OK, found=fine)
    status = Status.MISSING if must else Status.NOTE
    return Check(name=name, status=status, found=problem, advice=advice)


def _privileges(config: Config) -> Iterator[Check]:
    uid = os.geteuid()
    yield _check(
        "root",
        "" if uid == 0 else f"this process runs as uid {uid}",
        "run wrenn as root, with sudo",
        "this process is root",
    )
    lacking = lacking_capabilities(Path("/proc/self/status").read_text())
    yield _check(
        "capabilities",
        f"lacking: {', '.join(lacking)}" if lacking else "",
        "in a container, start it privileged",
        "all that are needed",
    )


def lacking_capabilities(status: str) -> list[str]:
    """Those of NEEDED_CAPABILITIES that a /proc/PID/status does not show as effective."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    effective = int(line.split()[1], 16)
    return [name for bit, name in NEEDED_CAPABILITIES.items() if not effective >> bit & 1]


def _programs(config: Config) -> Iterator[Check]:
    for program, package in PROGRAMS.items():
        found = shutil.which(program, path=CLEAN_ENVIRONMENT["PATH"])
        yield _check(
            f"program {program}",
            "" if found else "not installed",
            f"apt-get install {package}",
            str(found),
        )


def _kernel(config: Config) -> Iterator[Check]:
    yield _check(
        "userfaultfd",
        "" if Path("/dev/userfaultfd").exists() else "/dev/userfaultfd does not exist",
        "use a kernel of 6.1 or later with CONFIG_USERFAULTFD: needed to resume, not to run",
        "/dev/userfaultfd",
        must=False,
    )
    yield _check(
        "dirty pages",
        "" if pagemap.has_scan() else f"Linux {platform.release()} can't tell them exactly",
        "use Linux 6.7 or later (Debian's backports have one): on this one each pause of a QEMU "
        "guest looks through all memory that the guest has",
        "told exactly",
        must=False,
    )
    yield _check(
        "user namespaces",
        userns_problem(),
        "sysctl user.max_user_namespaces must not be 0, and a container must allow them: needed "
        "for wrenn image import, not to run",
        "usable",
        must=False,
    )


def userns_problem() -> str:
    """Why no process can have one, as imports of images need it; "": one can. It is tried."""
    try:
        run(userns.wrapped(["true"]), timeout_s=USERNS_S)
    except OSError as error:
        return str(error)
    return ""


def _cgroups(config: Config) -> Iterator[Check]:
    hierarchy = Hierarchy.find()
    if hierarchy is None:
        yield Check(
            name="cgroup limits",
            status=Status.NOTE,
            found="no cgroup2 is mounted: no limit is enforced, processes are tracked by pid",
            advice="boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1)",
        )
        return
    lacks = hierarchy.lacks
    yield _check(
        "cgroup limits",
        f"{hierarchy.mount} lacks {', '.join(lacks)}: those limits are not enforced"
        if lacks
        else "",
        "boot with cgroup v2 only (systemd.unified_cgroup_hierarchy=1)",
        f"cgroup2 at {hierarchy.mount} with all controllers",
        must=False,
    )


def _storage(config: Config) -> Iterator[Check]:
    there = _nearest_directory(config.data_dir)
    free = shutil.disk_usage(there).free
    yield _check(
        "disk space",
        f"{format_bytes(free)} free in {there}" if free < SETUP_BYTES else "",
        f"have {format_bytes(SETUP_BYTES)} free there, or choose another --data-dir",
        f"{format_bytes(free)} free in {there}",
        must=_layout(config) is None,
    )
    try:
        driver = drivers.choose_name(there, config.overlay)
        problem = "" if driver != "copy" else f"disks in {there} are copied, not cloned"
    except (Error, OSError) as error:
        yield Check(
            name="disks", status=Status.MISSING, found=str(error), advice="see WRENN_OVERLAY"
        )
        return
    yield _check(
        "disks",
        problem,
        "load device-mapper (modprobe dm_snapshot), or put the data directory on XFS or btrfs "
        "(wrenn setup --storage reflink makes one): disks are then made at once and share space",
        f"shared with what they are made from ({driver})",
        must=False,
    )


def _nearest_directory(path: Path) -> Path:
    """The data directory, or where it would be made; something above it that we may look at."""
    return next(p for p in (path, *path.parents) if os.access(p, os.R_OK | os.X_OK))


def _network(config: Config) -> Iterator[Check]:
    with Rtnetlink() as rt:
        own = routes.addresses(rt)
    chosen = resolvers.choose((), own)
    pool = choice.pool_of(config)
    facts = survey(pool, chosen)
    layout = _layout(config)
    links = f"{link_prefix(layout.installation)}+" if layout else "w<installation>v+"
    for name, problem, advice in (
        ("nftables", facts.nft_problem, "apt-get install nftables; use a kernel with nf_tables"),
        ("TAP devices", facts.tun_problem, "modprobe tun; in a container, pass /dev/net/tun"),
        ("network namespaces", facts.netns_problem, "in a container, start it privileged"),
    ):
        yield _check(name, problem, advice, "usable")
    yield _check(
        "internet",
        "" if facts.uplinks else "no route leads to the internet or to the resolvers",
        "sandboxes run, but reach nothing; add a default route",
        f"by {', '.join(facts.uplinks)}, MTU {facts.mtu}; resolvers "
        + ", ".join(str(address) for address in chosen),
        must=False,
    )
    yield Check(
        name="ip_forward",
        status=Status.OK,
        found="1: this host is a router already"
        if facts.is_router
        else "0: stays so; only the uplink forwards, and only while there are sandboxes",
    )
    yield _check(
        "forwarding",
        "; ".join(facts.forward_drops),
        f"let it pass the links of sandboxes: iptables -I FORWARD -i '{links}' -j ACCEPT and "
        f"iptables -I FORWARD -o '{links}' -j ACCEPT (with Docker: -I DOCKER-USER); without "
        "that sandboxes reach nothing",
        "no firewall drops it",
        must=False,
    )
    yield _check(
        "address pool",
        f"{pool} overlaps {', '.join(facts.overlaps)}" if facts.overlaps else "",
        "choose another range with WRENN_NETWORK_POOL; slots that overlap are passed over",
        f"{pool} is free",
        must=False,
    )


def _images(config: Config) -> Iterator[Check]:
    layout = _layout(config)
    if layout is None:
        yield Check(name="images", status=Status.NOTE, found="none yet", advice=FIRST_RUN)
        return
    store = ImageStore(layout)
    try:
        version = store.kernel().version
        names = ", ".join(image.name for image in store.list())
    except Error as error:
        yield images_problem(error)
        return
    yield Check(name="images", status=Status.OK, found=f"kernel {version}; images: {names}")


def images_problem(error: Error) -> Check:
    """What is not there yet comes by itself; what is broken only when it is asked for."""
    if isinstance(error, NotFound):
        return Check(name="images", status=Status.NOTE, found=str(error), advice=FIRST_RUN)
    advice = "wrenn setup: it builds again what is broken, and only that"
    return Check(name="images", status=Status.MISSING, found=str(error), advice=advice)


def _vmm(config: Config) -> Iterator[Check]:
    """Which VMM is used and why; the better ones that are not, and why not."""
    layout = _layout(config)
    for program in probe.Candidates(directory=config.data_dir / "vmm").programs():
        if config.vmm not in ("auto", program.name):
            continue
        verdict = _judge(program, layout)
        if verdict.works:
            yield Check(
                name="vmm",
                status=Status.OK,
                found=f"{verdict.name} is used, tier {verdict.tier}: {verdict.why}",
            )
            return
        yield Check(
            name=f"vmm {verdict.name}",
            status=Status.NOTE,
            found=f"not used: {verdict.why}",
            advice=_better(program),
        )
    yield Check(
        name="vmm",
        status=Status.MISSING,
        found="none can be used",
        advice="apt-get install qemu-system-x86",
    )


def _better(program: Program) -> str:
    if program.is_firecracker and not program.binary.exists():
        cpuinfo = Path("/proc/cpuinfo").read_text()
        return BETTER_TIER if probe.kvm_problem(cpuinfo) else "only its binary is missing here"
    return BETTER_TIER


def _judge(program: Program, layout: Layout | None) -> Verdict:
    """The verdict of the probe; without a kernel to boot, KVM is judged by its look alone."""
    if layout is not None and os.geteuid() == 0:
        try:
            kernel = ImageStore(layout).kernel()
            return probe.judge(
                program, choice.candidates(layout), choice.probe_guest(layout, kernel)
            )
        except (NotFound, ImageBroken):
            pass
    problem = probe.missing(program)
    return Verdict(
        name=program.name,
        tier=program.tier,
        works=not problem,
        why=problem or "by its look; it is tried when there is a kernel to boot",
    )


def _layout(config: Config) -> Layout | None:
    """The data directory, if there is one: looking makes none."""
    return Layout.find(config.data_dir) if os.geteuid() == 0 else None
