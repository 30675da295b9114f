"""Machines that boot, and every way in which a boot can fail; each ends with the leak check."""

import dataclasses
import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from wrennd.core.errors import Error, GuestFailed, HostUnsuitable, ImageBroken, VmmFailed
from wrennd.core.model import Command
from wrennd.core.sandboxes import Exit, Output
from wrennd.core.timings import Timings
from wrennd.host.machine import Machine
from wrennd.images import cpio
from wrennd.linux import process
from wrennd.storage.images import ImageStore
from wrennd.vmm import probe
from wrennd.vmm.program import Tier, qemu

MIB = 1 << 20


def run(machine, *argv, **changes):
    with machine.envd.start(Command(argv=argv, **changes)) as started:
        events = list(started.events())
    out = b"".join(e.data for e in events if isinstance(e, Output))
    assert isinstance(events[-1], Exit)
    return events[-1].code, out.decode()


def test_a_machine_runs_commands_and_knows_its_state(machine):
    assert run(machine, "echo", "hello") == (0, "hello\n")
    info = machine.vm.client.describe()
    assert (info.id, info.state, info.app_name) == (machine.spec.id, "Running", "Firecracker")
    config = machine.vm.client.vm_config()
    assert config["machine-config"]["track_dirty_pages"] is True
    assert config["drives"][0]["path_on_host"] == "/tmp/fc-vm/rootfs.ext4"


def test_closing_twice_and_what_is_gone(machine):
    pid = machine.vm.pid
    machine.close()
    machine.close()
    assert not Path(f"/proc/{pid}").exists()


def test_the_disk_of_one_is_not_seen_by_another(spec, parts):
    for _ in range(2):
        with closing(Machine.boot(spec, parts, Timings())) as machine:
            script = "test ! -e /home/user/mark && touch /home/user/mark && sync"
            assert run(machine, "sh", "-c", script) == (0, "")


@contextmanager
def closing(machine):
    try:
        yield machine
    finally:
        machine.close()


def test_a_vmm_killed_under_a_command_ends_it_at_once(machine):
    with machine.envd.start(Command(argv=("sleep", "1000"))) as started:
        machine.vm.process.signal(signal.SIGKILL)
        with pytest.raises(VmmFailed):
            list(started.events())
    assert "killed by signal 9" in machine.vm.describe_end()


def test_a_guest_that_reboots_ends_its_vmm_with_0(machine):
    with machine.envd.start(Command(argv=("sleep", "1000"))) as started:
        run_and_forget(machine, "sh", "-c", "echo b > /proc/sysrq-trigger")
        with pytest.raises(VmmFailed):
            list(started.events())
    assert "exit code 0" in machine.vm.describe_end()


def run_and_forget(machine, *argv):
    with machine.envd.start(Command(argv=argv, user="root")):
        pass


class KillingTimings(Timings):
    """Kills the VMM when a phase begins: the phases are the named points of a boot."""

    def __init__(self, at, journal):
        super().__init__()
        self._at = at
        self._journal = journal

    @contextmanager
    def phase(self, name):
        with super().phase(name):
            if name == self._at:
                for pid in self._journal():
                    os.kill(pid, signal.SIGKILL)
            yield


@pytest.mark.parametrize("phase", ["vmm_start", "vmm_configure", "vmm_boot", "guest"])
def test_a_vmm_killed_at_each_step_of_boot(spec, parts, layout, phase):
    from wrennd.linux.cgroup import Hierarchy

    group = Hierarchy.find().group(f"wrenn-{layout.installation}", spec.id)
    with pytest.raises(Error) as caught:
        Machine.boot(spec, parts, KillingTimings(phase, vmm_pids(group)))
    assert isinstance(caught.value, VmmFailed | GuestFailed), caught.value
    assert "killed by signal 9" in str(caught.value)


def vmm_pids(group):
    """The wrapper joins the cgroup within milliseconds of its start; wait for it."""
    from wrennd.core.deadline import Deadline

    def look():
        deadline = Deadline.after(20)
        while not (pids := group.pids()):
            deadline.check("the start of the VMM")
        return pids

    return look


class FailingTimings(Timings):
    """Raises when a phase begins or ends."""

    def __init__(self, at):
        super().__init__()
        self._at = at

    @contextmanager
    def phase(self, name):
        with super().phase(name):
            if self._at == f"before {name}":
                raise RuntimeError(self._at)
            yield
            if self._at == f"after {name}":
                raise RuntimeError(self._at)


PHASES = ("network", "disk", "vmm_start", "vmm_configure", "vmm_boot", "guest")


@pytest.mark.parametrize("when", [f"{w} {p}" for p in PHASES for w in ("before", "after")])
def test_whatever_step_fails_nothing_is_left(spec, parts, when):
    with pytest.raises(RuntimeError, match=when):
        Machine.boot(spec, parts, FailingTimings(when))


def image_with(parts, tmp_path, tree):
    """The busybox image's parts, with a root filesystem of the test's own."""
    root = tmp_path / "root"
    for name, (text, mode) in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        (root / name).chmod(mode)
    for name in ("proc", "dev", "sys"):
        (root / name).mkdir(exist_ok=True)
    disk = tmp_path / "rootfs.ext4"
    with disk.open("wb") as file:
        file.truncate(16 * MIB)
    process.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, disk], timeout_s=60)
    return dataclasses.replace(parts, image=dataclasses.replace(parts.image, rootfs=disk))


def test_a_guest_without_init_says_so_with_the_consoles_last_lines(spec, parts, tmp_path):
    with pytest.raises(GuestFailed, match="exit code 0") as caught:
        Machine.boot(spec, image_with(parts, tmp_path, {"etc/x": ("", 0o644)}), Timings())
    assert "wrenn-initrd: there is no /usr/lib/wrenn/init" in caught.value.hint


def test_a_guest_that_panics_says_so(spec, parts, tmp_path):
    initrd = tmp_path / "initrd.img"
    initrd.write_bytes(cpio.archive([]))
    broken = dataclasses.replace(parts.kernel, initrd=initrd)
    with pytest.raises(GuestFailed) as caught:
        Machine.boot(spec, dataclasses.replace(parts, kernel=broken), Timings())
    assert "Kernel panic - not syncing" in caught.value.hint


def test_a_guest_that_never_answers_is_given_up(spec, parts, tmp_path):
    silent = image_that_sleeps(parts, tmp_path)
    with pytest.raises(GuestFailed, match="did not get ready") as caught:
        Machine.boot(spec, dataclasses.replace(silent, guest_timeout_s=25.0), Timings())
    assert "I sleep" in caught.value.hint


def image_that_sleeps(parts, tmp_path):
    (tmp_path / "root/bin").mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", tmp_path / "root/bin/busybox")
    init = "#!/bin/busybox sh\necho I sleep\nexec busybox sleep 10000\n"
    return image_with(parts, tmp_path, {"usr/lib/wrenn/init": (init, 0o755)})


def test_a_corrupt_kernel_is_the_vmms_or_the_guests_failure(spec, parts, tmp_path):
    vmlinux = tmp_path / "vmlinux"
    vmlinux.write_bytes(b"\x7fELF" + os.urandom(8192))
    broken = dataclasses.replace(parts.kernel, vmlinux=vmlinux)
    with pytest.raises(VmmFailed, match=r".+"):
        Machine.boot(spec, dataclasses.replace(parts, kernel=broken), Timings())


def test_a_missing_disk_image_is_named(spec, parts, tmp_path):
    gone = dataclasses.replace(parts.image, rootfs=tmp_path / "gone.ext4")
    with pytest.raises(ImageBroken, match=r"gone\.ext4"):
        Machine.boot(spec, dataclasses.replace(parts, image=gone), Timings())


def test_without_qemu_the_package_is_named(layout, tmp_path, sandboxes):
    from wrennd.host.choice import probe_guest

    nowhere = probe.Candidates(directory=tmp_path, qemu=tmp_path / "qemu")
    guest = probe_guest(layout, ImageStore(layout).kernel())
    with pytest.raises(HostUnsuitable, match="apt-get install qemu-system-x86"):
        probe.choose("auto", nowhere, guest)


def test_a_qemu_that_can_not_start_is_the_vmms_failure(spec, parts):
    """Bound over QEMU's place in the VMM's root: a program that ends at once."""
    program = qemu(Tier.EMULATED)
    binds = tuple(b for b in program.binds if b[1] != "/usr/bin/qemu-system-x86_64")
    broken = dataclasses.replace(
        program, binds=(*binds, ("/usr/bin/false", "/usr/bin/qemu-system-x86_64"))
    )
    with pytest.raises(VmmFailed, match=r".+"):
        Machine.boot(spec, dataclasses.replace(parts, program=broken), Timings())


def test_the_probe_sees_userspace_and_sees_when_there_is_none(layout, tmp_path, sandboxes):
    from wrennd.host.choice import probe_guest

    guest = probe_guest(layout, ImageStore(layout).kernel())
    assert probe.boot_problem(qemu(Tier.EMULATED), guest) == ""
    empty = tmp_path / "initrd.img"
    empty.write_bytes(cpio.archive([]))
    problem = probe.boot_problem(qemu(Tier.EMULATED), dataclasses.replace(guest, initrd=empty))
    assert "before userspace" in problem
