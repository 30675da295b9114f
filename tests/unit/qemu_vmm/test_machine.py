import json
from dataclasses import replace
from itertools import pairwise

import pytest

from wrennd.qemu_vmm.balloon import Balloon
from wrennd.qemu_vmm.configuration import OpenDrive, OpenInterface
from wrennd.qemu_vmm.machine import Accel, Boot, Machine, kernel_command_line
from wrennd.qemu_vmm.resources import (
    DEFAULT_BOOT_ARGS,
    CacheType,
    Drive,
    Entropy,
    MachineConfig,
    NetworkInterface,
    RateLimiter,
    TokenBucket,
)

DRIVE = OpenDrive(
    drive=Drive(
        drive_id="a_drive_with_a_long_name",
        partuuid=None,
        is_root_device=False,
        cache_type=CacheType.UNSAFE,
        is_read_only=None,
        path_on_host="/never/opened/by,QEMU",
        rate_limiter=None,
        io_engine=None,
        socket=None,
    ),
    fd=20,
    is_device=False,
)
INTERFACE = OpenInterface(
    interface=NetworkInterface(
        iface_id="eth0",
        host_dev_name="tap0",
        guest_mac=None,
        mtu=1400,
        rx_rate_limiter=None,
        tx_rate_limiter=None,
    ),
    mac="02:00:00:00:00:01",
    fd=30,
)
MACHINE = Machine(
    name="vm",
    accel=Accel.TCG,
    config=MachineConfig(vcpu_count=2, mem_size_mib=256),
    boot=Boot(kernel="/kernel", initrd=None, command_line="quiet", fds=(10,)),
    drives=(DRIVE,),
    interfaces=(INTERFACE,),
    entropy=Entropy(rate_limiter=None),
    balloon=None,
    qmp_fd=3,
    console_fd=4,
)


def values(machine, option):
    arguments = machine.arguments()
    return [b for a, b in pairwise(arguments) if a == option]


def devices(machine):
    return [json.loads(text) for text in values(machine, "-device") if text.startswith("{")]


def changed(**changes):
    return replace(MACHINE, drives=(replace(DRIVE, drive=replace(DRIVE.drive, **changes)),))


def test_devices_have_their_own_place_from_the_last_one_down():
    found = [(d["driver"], d["bus"]) for d in devices(MACHINE)]
    assert found == [
        ("virtio-blk-device", "virtio-mmio-bus.23"),
        ("virtio-net-device", "virtio-mmio-bus.22"),
        ("virtio-rng-device", "virtio-mmio-bus.21"),
    ]


def test_qemu_gets_descriptors_and_no_path_of_a_drive():
    assert MACHINE.inherited_fds == (3, 4, 10, 20, 30)
    assert values(MACHINE, "-add-fd") == ["fd=20,set=20"]
    assert not any("/never" in argument for argument in MACHINE.arguments())
    (block,) = values(MACHINE, "-blockdev")
    assert json.loads(block)["file"]["file"]["filename"] == "/dev/fdset/20"


def test_a_disk_error_is_the_guests_own():
    disk = devices(MACHINE)[0]
    assert (disk["rerror"], disk["werror"]) == ("report", "report")
    assert len(disk["serial"]) == 20


@pytest.mark.parametrize(
    ("cache_type", "no_flush"), [(CacheType.UNSAFE, True), (CacheType.WRITEBACK, False)]
)
def test_only_writeback_flushes(cache_type, no_flush):
    (block,) = values(changed(cache_type=cache_type), "-blockdev")
    assert json.loads(block)["cache"] == {"direct": False, "no-flush": no_flush}


def test_block_devices_have_another_driver():
    (block,) = values(replace(MACHINE, drives=(replace(DRIVE, is_device=True),)), "-blockdev")
    assert json.loads(block)["file"]["file"]["driver"] == "host_device"


def test_limits_stand_between_guest_and_image():
    limiter = RateLimiter(
        bandwidth=TokenBucket(size=1000, one_time_burst=500, refill_time=100), ops=None
    )
    machine = changed(rate_limiter=limiter, is_read_only=True)
    block = json.loads(values(machine, "-blockdev")[0])
    assert (block["driver"], block["throttle-group"]) == ("throttle", "limit0")
    assert block["read-only"] is block["file"]["read-only"] is block["file"]["file"]["read-only"]
    assert block["read-only"] is True
    group = json.loads(values(machine, "-object")[1])
    assert (group["id"], group["limits"]["bps-total"]) == ("limit0", 10_000)


def test_a_limit_of_the_entropy_device_fits_32_bits():
    bucket = TokenBucket(size=1 << 40, one_time_burst=None, refill_time=1 << 40)
    entropy = Entropy(rate_limiter=RateLimiter(bandwidth=bucket, ops=None))
    rng = devices(replace(MACHINE, entropy=entropy))[-1]
    assert (rng["max-bytes"], rng["period"]) == ((1 << 32) - 1, (1 << 32) - 1)


def test_the_balloon_moves_nobody():
    balloon = Balloon(amount_mib=64, deflate_on_oom=True, stats_polling_interval_s=3)
    *others, found = devices(replace(MACHINE, balloon=balloon))
    assert others == devices(MACHINE)
    assert found == {
        "driver": "virtio-balloon-device",
        "id": "balloon",
        "bus": "virtio-mmio-bus.1",
        "deflate-on-oom": True,
        "free-page-reporting": False,
        "page-poison": False,
        "guest-stats-polling-interval": 3,
    }
    without = devices(replace(MACHINE, balloon=Balloon(amount_mib=0, deflate_on_oom=False)))[-1]
    assert "guest-stats-polling-interval" not in without


def test_the_network():
    (netdev,) = values(MACHINE, "-netdev")
    assert json.loads(netdev) == {"type": "tap", "id": "net0", "fd": "30", "vhost": False}
    net = devices(MACHINE)[1]
    assert (net["mac"], net["host_mtu"]) == ("02:00:00:00:00:01", 1400)


def test_the_processor():
    assert values(MACHINE, "-smp") == ["cpus=2,sockets=1,cores=2,threads=1"]
    smt = replace(MACHINE, config=replace(MACHINE.config, smt=True))
    assert values(smt, "-smp") == ["cpus=2,sockets=1,cores=1,threads=2"]
    assert values(MACHINE, "-cpu") == ["max"]
    assert values(replace(MACHINE, accel=Accel.KVM), "-accel") == ["kvm"]


def test_the_sandbox_is_on():
    assert values(MACHINE, "-sandbox") == [
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    ]


def test_memory_is_a_memfd_of_the_whole_size():
    ram = json.loads(values(MACHINE, "-object")[0])
    assert (ram["qom-type"], ram["size"], ram["share"]) == (
        "memory-backend-memfd",
        MACHINE.ram_bytes,
        True,
    )


def test_the_kernels_command_line():
    root = replace(DRIVE, drive=replace(DRIVE.drive, is_root_device=True, is_read_only=True))
    uuid = replace(root, drive=replace(root.drive, partuuid="1-2", is_read_only=False))
    assert kernel_command_line(None, (), None) == f"{DEFAULT_BOOT_ARGS} pci=off"
    assert kernel_command_line("a", (root, DRIVE), None) == "a pci=off root=/dev/vda ro"
    assert kernel_command_line("a", (uuid,), None) == "a pci=off root=PARTUUID=1-2 rw"
    assert kernel_command_line("a", (DRIVE,), 5) == "a pci=off tsc_early_khz=5 tsc=reliable"
    given = "pci=lastbus=1 tsc_early_khz=7"
    assert kernel_command_line(given, (), 5) == given
    assert kernel_command_line("tsc=unstable pci=off", (), 5).endswith("pci=off tsc_early_khz=5")
