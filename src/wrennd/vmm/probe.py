"""Find out which VMM works on this machine, by running it.

Order: Firecracker with KVM, QEMU with KVM, QEMU emulated. That /dev/kvm opens proves nothing: some
guests show one that can't boot a stock kernel. So KVM counts only when the CPU has vmx or svm and
our own kernel and initrd reach userspace with it; that answer is kept by boot id and by what was
run, since it costs seconds.
"""

import hashlib
import json
import os
import re
import select
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded, HostUnsuitable, VmmFailed
from wrennd.core.timings import Timings
from wrennd.linux import files
from wrennd.vmm import package
from wrennd.vmm.launch import Cell
from wrennd.vmm.program import QEMU, Program, Tier, firecracker, own_package, qemu
from wrennd.vmm.vm import BootSpec, Vm, boot

# A guest that still says something is not given up: with KVM in a virtual machine on a busy host
# it takes half a minute, and is many times faster all the same than emulation would be there.
TIMEOUT_S = 90.0
# No new console output for that long: it hangs. Said too early, all sandboxes of the host are
# emulated until it is restarted.
STALL_S = 30.0
USERSPACE = "wrenn-initrd:"  # the first words of our initrd's init
# Every character on the console is an exit, the dearest thing there is under nested KVM: with all
# of the kernel's messages the boot takes 17 s instead of 4 s there. These are enough to see that
# it goes on.
PROBE_ARGS = "console=ttyS0 reboot=k panic=1 rdinit=/init loglevel=6 cryptomgr.notests"
PROBE_MEM_MIB = 128
# Its snapshots keep vsock alive, and diffs of large guests are whole.
MIN_VERSION = "1.16.1"
PROBE_UID = 1_879_099_999  # below every slot's uid


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What is booted to find out. `run_parent`: a directory where a run directory may be made."""

    kernel: Path
    initrd: Path
    kernel_digest: str
    run_parent: Path


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether one VMM can be used here, and why (a sentence without a full stop)."""

    name: str
    tier: Tier
    works: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """What could be used. `directory`: the installation's own, where a Firecracker that was set up
    lies, answers are kept, and our package is copied to if need be."""

    directory: Path
    qemu: Path = QEMU

    @property
    def answers(self) -> Path:
        return self.directory / "probes"

    def programs(self) -> tuple[Program, ...]:
        """Best first."""
        ours = own_package()
        if os.access(self.directory, os.W_OK):  # none yet, or not ours: nothing is started then
            ours = package.readable(ours, self.directory)
        return (
            firecracker(self.directory / "firecracker"),
            qemu(Tier.KVM, self.qemu, ours),
            qemu(Tier.EMULATED, self.qemu, ours),
        )


def choose(wanted: str, candidates: Candidates, guest: Guest) -> tuple[Program, list[Verdict]]:
    """The first VMM that works, or the wanted one, and what was found out on the way.

    Errors: HostUnsuitable when none works, or the wanted one does not; the reasons are in it.
    """
    verdicts: list[Verdict] = []
    for program in candidates.programs():
        if wanted not in ("auto", program.name):
            continue
        verdict = judge(program, candidates, guest)
        verdicts.append(verdict)
        if verdict.works:
            return program, verdicts
    reasons = "; ".join(f"{v.name}: {v.why}" for v in verdicts)
    raise HostUnsuitable(f"no VMM can be used here ({reasons})", hint="run wrenn doctor")


def judge(program: Program, candidates: Candidates, guest: Guest) -> Verdict:
    """Whether `program` can be used: by looking, then by the kept answer, then by booting."""
    problem = missing(program)
    if problem:
        return Verdict(name=program.name, tier=program.tier, works=False, why=problem)
    if program.tier is Tier.EMULATED:
        return Verdict(
            name=program.name, tier=program.tier, works=True, why="emulation needs nothing more"
        )
    why = _kept_or_booted(program, candidates.answers, guest)
    return Verdict(
        name=program.name,
        tier=program.tier,
        works=not why,
        why=why or "a guest booted to userspace with KVM",
    )


def missing(program: Program) -> str:
    """What keeps `program` from being tried at all; empty when nothing does."""
    if not os.access(program.binary, os.X_OK):
        if program.is_firecracker:
            return "no Firecracker was set up (wrenn setup --firecracker FILE)"
        return f"{program.binary} is missing (apt-get install qemu-system-x86)"
    if program.tier is Tier.KVM:
        return kvm_problem(Path("/proc/cpuinfo").read_text())
    return ""


def kvm_problem(cpuinfo: str, device: Path = Path("/dev/kvm")) -> str:
    """Why KVM can't work by the look of it; empty when it may."""
    flags = {
        flag
        for line in cpuinfo.splitlines()
        if line.startswith("flags")
        for flag in line.partition(":")[2].split()
    }
    if not flags & {"vmx", "svm"}:
        return "the CPU shows no hardware virtualization (neither vmx nor svm in its flags)"
    if not device.exists():
        return f"{device} does not exist (modprobe kvm_intel or kvm_amd)"
    return ""


def _kept_or_booted(program: Program, answers: Path, guest: Guest) -> str:
    kept = answers / f"{program.name}.json"
    key = {
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "binary": hashlib.sha256(program.binary.read_bytes()).hexdigest(),
        "kernel": guest.kernel_digest,
    }
    try:
        answer = json.loads(kept.read_text())
        if answer["key"] == key:
            return str(answer["problem"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    problem = boot_problem(program, guest)
    answers.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_atomic(kept, json.dumps({"key": key, "problem": problem}).encode())
    return problem


def boot_problem(program: Program, guest: Guest) -> str:
    """Boot our kernel and initrd with `program`, without disk or network; empty when it works."""
    with files.locked(guest.run_parent / ".probe.lock"):
        for stale in guest.run_parent.glob("probe-*"):  # of a probe that was killed
            shutil.rmtree(stale)
        return _boot(program, guest, Path(tempfile.mkdtemp(prefix="probe-", dir=guest.run_parent)))


def _boot(program: Program, guest: Guest, run_dir: Path) -> str:
    cell = Cell(
        id="probe",
        uid=PROBE_UID,
        run_dir=run_dir,
        kernel=guest.kernel,
        initrd=guest.initrd,
        disk=None,
        netns=None,
        cgroup_procs=None,
        dies_with_parent=True,
        max_file_bytes=PROBE_MEM_MIB << 20,
    )
    spec = BootSpec(vcpus=1, mem_mib=PROBE_MEM_MIB, boot_args=PROBE_ARGS, has_disk=False)
    try:
        with boot(program, cell, spec, Timings()) as vm:
            if program.is_firecracker and is_too_old(version := vm.client.describe().vmm_version):
                return f"it is version {version}, and {MIN_VERSION} is the first that is supported"
            return _watch(vm)
    except (VmmFailed, DeadlineExceeded) as error:
        return f"a guest could not be started: {error}"
    finally:
        shutil.rmtree(run_dir)


def is_too_old(version: str) -> bool:
    """Whether a Firecracker that says this of itself is not known to work."""
    numbers = [int(number) for number in re.findall(r"[0-9]+", version)]
    return numbers < [int(number) for number in MIN_VERSION.split(".")]


def _watch(vm: Vm) -> str:
    """Look at the console until userspace speaks, nothing moves any more, or the VMM ends."""
    deadline = Deadline.after(TIMEOUT_S)
    size, still = -1, Deadline.after(STALL_S)
    for ended in _ticks(vm.pidfd):
        text = vm.console_tail(200)
        if any(USERSPACE in line for line in text):
            return ""
        last = text[-1] if text else "no output"
        if ended:
            return f"{vm.describe_end()} before userspace; console: {last}"
        now = os.stat(vm.run_dir / "console.log", follow_symlinks=False).st_size  # noqa: PTH116
        if now != size:
            size, still = now, Deadline.after(STALL_S)
        if still.is_over or deadline.is_over:
            return f"a guest did not reach userspace; console: {last}"
    raise AssertionError("the ticks never end by themselves")


def _ticks(pidfd: int) -> Iterator[bool]:
    """Every 50 ms, and at once when the process ends: whether it has."""
    while True:
        yield bool(select.select([pidfd], [], [], 0.05)[0])
