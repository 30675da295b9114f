"""A VMM for each test, and the smallest guest that shows what a VMM did."""

import os

import pytest

from vmm_server import OURS, Server, program
from wrennd.images import cpio
from wrennd.linux import process

# Our kernel's initrd has busybox and the modules; a second archive behind it adds this init, which
# `rdinit=/test-init` chooses. `test=WORD` on the command line says what it does.
INIT = r"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
eval "$(/bin/busybox grep '^modprobe' /init | /bin/busybox cut -d'|' -f1)"
for word in $(/bin/busybox cat /proc/cmdline); do
	case $word in test=*) mode=${word#test=} ;; esac
done
echo "READY cpus=$(/bin/busybox nproc)"
case $mode in
flood) exec /bin/busybox yes "$(/bin/busybox seq -s ' ' 1 200)" ;;
tick) n=0; while :; do n=$((n + 1)); echo "tick $n"; /bin/busybox usleep 50000; done ;;
idle) while :; do /bin/busybox sleep 1000; done ;;
button)
	name=$(/bin/busybox grep -l 'Power Button' /sys/class/input/event*/device/name)
	name=${name%/device/name}
	exec </dev/input/${name##*/}
	echo LISTENING
	/bin/busybox dd bs=24 count=1 of=/dev/null 2>/dev/null ;;
devices)
	echo "written by the guest" | /bin/busybox dd of=/dev/vda conv=notrunc,fsync 2>/dev/null
	echo "vdb ro=$(/bin/busybox cat /sys/block/vdb/ro) $(/bin/busybox head -c 5 /dev/vdb)"
	echo "mac=$(/bin/busybox cat /sys/class/net/eth0/address)"
	echo "mtu=$(/bin/busybox cat /sys/class/net/eth0/mtu)"
	echo "rng=$(/bin/busybox cat /sys/class/misc/hw_random/rng_current)"
	cd /sys/devices/system/clocksource/clocksource0
	echo "clock=$(/bin/busybox cat current_clocksource)"
	;;
esac
/bin/busybox reboot -f
"""


@pytest.fixture
def server(leak_check, tmp_path):
    """A VMM that has been told nothing."""
    with Server(tmp_path, "--level", "Debug") as running:
        yield running.wait_for_api()


@pytest.fixture
def ours():
    """For what only our server does: its limits, its QEMU."""
    if program() != OURS:
        pytest.skip(f"WRENN_VMM names another program than ours: {' '.join(program())}")


@pytest.fixture
def any_kernel(tmp_path):
    """A file that may be named as a kernel; nothing boots from it."""
    path = tmp_path / "any-kernel"
    path.write_bytes(b"not a kernel")
    return path


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(b"hello" + bytes(1 << 20))
    return path


@pytest.fixture(scope="session")
def test_initrd(kernel, tmp_path_factory):
    path = tmp_path_factory.mktemp("initrd") / "initrd.img"
    own = cpio.archive([cpio.file("test-init", INIT.encode(), 0o755)])
    path.write_bytes(kernel.initrd.read_bytes() + own)
    return path


@pytest.fixture
def guest(kernel, test_initrd, tmp_path):
    """Configure a server for one of the test guest's modes; its console is `console.log`."""

    def configure(server, mode, *, vcpus=1, console=True):
        server.done("PUT", "/machine-config", {"vcpu_count": vcpus, "mem_size_mib": 128})
        server.done(
            "PUT",
            "/boot-source",
            {
                "kernel_image_path": os.fspath(kernel.vmlinux),
                "initrd_path": os.fspath(test_initrd),
                "boot_args": f"console=ttyS0 reboot=k panic=1 quiet rdinit=/test-init test={mode}",
            },
        )
        log = tmp_path / "console.log"
        if console:
            server.done("PUT", "/serial", {"serial_out_path": os.fspath(log)})
        return log

    return configure


@pytest.fixture
def start():
    def instance_start(server):
        server.done("PUT", "/actions", {"action_type": "InstanceStart"})

    return instance_start


@pytest.fixture
def taps(tmp_path):
    """Two taps in this namespace, gone at the end."""
    names = [f"qv{os.getpid() % 100000}a", f"qv{os.getpid() % 100000}b"]
    for name in names:
        process.run(["ip", "tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr"], timeout_s=10)
    try:
        yield names
    finally:
        for name in names:
            process.run(["ip", "link", "del", name], timeout_s=10, check=False)
