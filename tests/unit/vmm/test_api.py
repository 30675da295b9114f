from pathlib import Path

from wrennd.vmm import api
from wrennd.vmm.program import Tier, firecracker, qemu
from wrennd.vmm.vm import BootSpec, serial_of


def test_bodies_hold_firecrackers_names_and_no_nulls():
    drive = api.Drive(drive_id="rootfs", path_on_host="/tmp/fc-vm/rootfs.ext4")
    assert drive.path == "/drives/rootfs"
    assert drive.to_body() == {
        "drive_id": "rootfs",
        "path_on_host": "/tmp/fc-vm/rootfs.ext4",
        "is_root_device": False,
        "is_read_only": False,
        "cache_type": "Unsafe",
        "io_engine": "Sync",
    }
    assert "initrd_path" not in api.BootSource(kernel_image_path="/k").to_body()


def test_boot_is_configured_in_order_with_dirty_tracking_on():
    spec = BootSpec(vcpus=2, mem_mib=256, boot_args="quiet", tap="tap0", mac="02:00:00:00:00:01")
    sent = list(spec.resources(api.Serial(serial_out_path="/c")))
    assert [r.path for r in sent] == [
        "/machine-config",
        "/serial",
        "/boot-source",
        "/drives/rootfs",
        "/network-interfaces/eth0",
        "/entropy",
    ]
    assert sent[0].to_body()["track_dirty_pages"] is True
    assert sent[3].to_body()["is_root_device"] is False


def test_a_guest_without_disk_or_network_gets_neither():
    spec = BootSpec(vcpus=1, mem_mib=128, boot_args="", has_disk=False)
    paths = [r.path for r in spec.resources(api.Serial())]
    assert paths == ["/machine-config", "/serial", "/boot-source", "/entropy"]


def test_firecrackers_console_is_its_stdout_and_limited():
    ours, real = serial_of(qemu(Tier.KVM)), serial_of(firecracker(Path("/fc")))
    assert ours.to_body() == {"serial_out_path": "/run/vmm/console.log"}
    assert set(real.to_body()) == {"rate_limiter"}
