"""Each image booted by a bare QEMU, without any VMM of ours: kernel, initrd, init, agent."""

import os
import re
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from wrennd.core.deadline import Deadline
from wrennd.linux.process import PIPE, Process, run, spawn
from wrennd.linux.tsc import tsc_khz

pytestmark = pytest.mark.vm
BOOT_TIMEOUT_S = 90.0
END_TIMEOUT_S = 30.0
BASE = "console=ttyS0 reboot=k panic=1 quiet loglevel=4"
DISK = "root=/dev/vda rw"
ADDRESSES = (
    "wrenn.ip=169.254.0.21/30 wrenn.gw=169.254.0.22 wrenn.dns=192.0.2.1,192.0.2.2 "
    "wrenn.hostname=box-1"
)
# What QEMU's own network gives: the guest's address is ours, the rest is not used.
USER_NET = (
    "user,id=n0,net=169.254.0.20/30,host=169.254.0.22,dns=169.254.0.23,"
    "dhcpstart=169.254.0.21,restrict=on"
)


class Guest:
    """A running QEMU and what its console said."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said = ""
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)

    def wait_for(self, pattern: str, timeout_s: float = BOOT_TIMEOUT_S) -> re.Match[str]:
        """The first match of `pattern` in what the console said so far."""
        deadline = Deadline.after(timeout_s)
        while True:
            found = re.search(pattern, self.said, re.MULTILINE)
            if found:
                return found
            self._read(pattern, deadline)

    def wait_for_end(self) -> int | None:
        return self.process.wait(Deadline.after(END_TIMEOUT_S))

    def _read(self, pattern: str, deadline: Deadline) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        select.select([stdout], [], [], deadline.remaining_s)
        data = stdout.read()
        if deadline.is_over or data == b"":
            raise AssertionError(f"no {pattern!r} on the console:\n{self.said}")
        self.said += (data or b"").decode(errors="replace").replace("\r", "")


@contextmanager
def booted(kernel, rootfs, *, args: str, network=True, monitor=None) -> Iterator[Guest]:
    """A guest whose changes to the disk are thrown away. `args` go onto its command line.

    monitor: path of a socket that takes commands for QEMU.
    """
    argv = [
        *("qemu-system-x86_64", "-M", "microvm", "-accel", "tcg,thread=multi,tb-size=64"),
        *("-cpu", "max", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-no-reboot", "-serial", "stdio", "-kernel", kernel.vmlinux, "-initrd", kernel.initrd),
        *("-append", f"{BASE} {args} tsc_early_khz={tsc_khz()}"),
        *("-drive", f"id=d0,file={rootfs},format=raw,if=none,snapshot=on"),
        *("-device", "virtio-blk-device,drive=d0"),
    ]
    if network:
        argv += ["-netdev", USER_NET, "-device", "virtio-net-device,netdev=n0"]
    if monitor is not None:
        argv += ["-monitor", f"unix:{monitor},server=on,wait=off"]
    with spawn(argv, stdin=PIPE, stdout=PIPE, stderr=2) as process:
        yield Guest(process)


@pytest.fixture(params=["base", "busybox"])
def rootfs(request, images):
    return images.find(request.param).rootfs


def test_init_and_the_agent_start(kernel, rootfs):
    with booted(kernel, rootfs, args=f"{DISK} {ADDRESSES}") as guest:
        guest.wait_for("^wrenn-init: started$")
        guest.wait_for("^wrenn-init: envd started$")
        guest.wait_for("^envd: listening on 0.0.0.0:49983$")
        assert "warning" not in guest.said
        assert guest.process.exit_code is None


def test_without_network_init_says_so_and_goes_on(kernel, busybox_image):
    args = f"{DISK} {ADDRESSES}"
    with booted(kernel, busybox_image.rootfs, args=args, network=False) as guest:
        guest.wait_for("^wrenn-init: warning: there is no eth0")
        guest.wait_for("^envd: listening")


def test_nothing_on_the_command_line_is_nothing_to_set(kernel, busybox_image):
    with booted(kernel, busybox_image.rootfs, args=DISK) as guest:
        guest.wait_for("^envd: listening")
        assert "warning" not in guest.said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("rw", "no root= on the kernel's command line"),
        (f"{DISK} init=/nosuch", "there is no /nosuch on /dev/vda"),
        ("root=/dev/vdz rw", "the root disk /dev/vdz did not appear"),
    ],
)
def test_an_initrd_that_can_not_go_on_says_why_and_ends_the_vm(kernel, busybox_image, args, said):
    with booted(kernel, busybox_image.rootfs, args=args) as guest:
        guest.wait_for(f"^wrenn-initrd: {re.escape(said)}; rebooting$")
        assert guest.wait_for_end() == 0


def test_a_disk_that_is_no_filesystem_ends_the_vm(kernel, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with booted(kernel, disk, args=DISK) as guest:
        guest.wait_for("^wrenn-initrd: can't mount /dev/vda; rebooting$")
        assert guest.wait_for_end() == 0


def test_the_power_button_ends_the_vm_in_good_order(kernel, busybox_image, tmp_path):
    monitor = tmp_path / "monitor"
    with booted(kernel, busybox_image.rootfs, args=DISK, monitor=monitor) as guest:
        guest.wait_for("^envd: listening")
        with socket.socket(socket.AF_UNIX) as commands:
            commands.connect(str(monitor))
            commands.sendall(b"system_powerdown\n")
            guest.wait_for("^wrenn-init: power button; rebooting$", END_TIMEOUT_S)
            assert guest.wait_for_end() == 0


def test_an_agent_that_can_not_run_is_tried_four_times_and_ends_the_vm(
    kernel, busybox_image, tmp_path
):
    disk = tmp_path / "disk"
    run(("cp", "--sparse=always", busybox_image.rootfs, disk), timeout_s=60)
    disk.chmod(0o600)
    run(("debugfs", "-w", "-R", "rm /usr/lib/wrenn/envd.pyz", disk), timeout_s=60)
    with booted(kernel, disk, args=DISK) as guest:
        guest.wait_for("^wrenn-init: envd can't be kept running; rebooting$")
        assert guest.said.count("wrenn-init: envd ended with status 1\n") == 4
        assert guest.wait_for_end() == 0
